// Loaded before the C library (LD_PRELOAD), it counts the calls that change files under one folder, and at one of them
// fails, writes half, or kills the process. It stands below Python, numpy and SQLite alike.
//
// `fault_arm` says when and how; `fault_count` how many calls there were; `fault_names` which. What the folder would
// hold after a power cut is kept in a shadow folder: a file's bytes as they were at its last sync, a folder's names as
// they were at its own.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { COUNT, FAIL, HALF, FULL, KILL, KILL_HALF };

static char folder[PATH_MAX];
static char shadow[PATH_MAX];
static enum mode mode;
static long at;
static long count;
static char names[1 << 16];  // of the calls, a line each

#define REAL(name) ((__typeof__(&name))real(#name))

static void* real(const char* name) {
    void* found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

void fault_arm(const char* under, const char* keep, int how, long number) {
    mode = how;
    at = number;
    count = 0;
    names[0] = 0;
    snprintf(shadow, sizeof shadow, "%s", keep);
    snprintf(folder, sizeof folder, "%s", under);
}

long fault_count(void) { return count; }

const char* fault_names(void) { return names; }

__attribute__((constructor)) static void arm_by_environment(void) {
    const char *under = getenv("FAULT_FOLDER"), *how = getenv("FAULT_MODE"), *number = getenv("FAULT_AT");
    if (under && how && number) fault_arm(under, "", atoi(how), atol(number));
}

static int is_under(const char* path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || path[length] == 0);
}

// The path of a call, absolute; 0 where it is not under the folder.
static int place(int at_folder, const char* path, char* absolute) {
    if (!folder[0]) return 0;
    if (path[0] == '/') {
        snprintf(absolute, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        snprintf(link, sizeof link, at_folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at_folder);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        snprintf(absolute, PATH_MAX, "%.2000s/%.2000s", base, path);
    }
    return is_under(absolute);
}

static int place_of_handle(int handle, char* absolute) {
    if (!folder[0]) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, absolute, PATH_MAX - 1);
    if (length < 0) return 0;
    absolute[length] = 0;
    return is_under(absolute);
}

static void copy_bytes(const char* from, const char* to) {
    char buffer[1 << 16];
    int in = REAL(open)(from, O_RDONLY | O_CLOEXEC);
    int out = REAL(open)(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (ssize_t length; in >= 0 && out >= 0 && (length = read(in, buffer, sizeof buffer)) > 0;)
        if (REAL(write)(out, buffer, length) != length) abort();
    if (in >= 0) close(in);
    if (out >= 0) close(out);
}

// A synced file: SHADOW/<inode> holds its bytes; a synced folder: a line "inode name" each of its entries.
static void keep_synced(const char* path) {
    struct stat status;
    char kept[PATH_MAX];
    if (!shadow[0] || stat(path, &status)) return;
    snprintf(kept, sizeof kept, "%.2000s/%ld", shadow, (long)status.st_ino);
    if (S_ISREG(status.st_mode)) {
        copy_bytes(path, kept);
        return;
    }
    DIR* open_folder = opendir(path);
    int out = REAL(open)(kept, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (struct dirent* entry; open_folder && (entry = readdir(open_folder));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            dprintf(out, "%ld %s\n", (long)entry->d_ino, entry->d_name);
    if (open_folder) closedir(open_folder);
    close(out);
}

// An inode that loses its last name must not be given to another file: a cut may bring the first one back.
static void keep_inode(const char* path) {
    struct stat status;
    char kept[PATH_MAX];
    if (!shadow[0] || stat(path, &status) || !S_ISREG(status.st_mode)) return;
    snprintf(kept, sizeof kept, "%.2000s/gone-%ld-%ld", shadow, (long)status.st_ino, count);
    REAL(link)(path, kept);
}

enum outcome { GO, STOP, SHORT };

// One more call; what is to become of it, with errno set where it fails.
static enum outcome step(const char* name, const char* path, int takes_space) {
    long number = __sync_add_and_fetch(&count, 1);
    size_t used = strlen(names);
    const char* file = strrchr(path, '/');
    if (mode == COUNT && used < sizeof names - 300)
        snprintf(names + used, sizeof names - used, "%s %.200s\n", name, file ? file + 1 : path);
    if (mode == FULL && number >= at && takes_space) {
        errno = ENOSPC;
        return STOP;
    }
    if (number != at || mode == COUNT || mode == FULL) return GO;
    if ((mode == HALF || mode == KILL_HALF) && takes_space) return SHORT;
    if (mode == KILL || mode == KILL_HALF) kill(getpid(), SIGKILL);
    errno = EIO;
    return STOP;
}

static ssize_t after_half(void) {
    if (mode == KILL_HALF) kill(getpid(), SIGKILL);
    errno = EIO;
    return -1;
}

ssize_t write(int handle, const void* bytes, size_t size) {
    char path[PATH_MAX];
    if (!place_of_handle(handle, path)) return REAL(write)(handle, bytes, size);
    enum outcome outcome = step("write", path, 1);
    if (outcome == STOP) return -1;
    ssize_t done = REAL(write)(handle, bytes, outcome == SHORT ? size / 2 : size);
    return outcome == SHORT ? after_half() : done;
}

#define PWRITE(name)                                                                  \
    ssize_t name(int handle, const void* bytes, size_t size, off64_t offset) {        \
        char path[PATH_MAX];                                                          \
        if (!place_of_handle(handle, path)) return REAL(name)(handle, bytes, size, offset); \
        enum outcome outcome = step(#name, path, 1);                                  \
        if (outcome == STOP) return -1;                                               \
        ssize_t done = REAL(name)(handle, bytes, outcome == SHORT ? size / 2 : size, offset); \
        return outcome == SHORT ? after_half() : done;                                \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int handle, const struct iovec* parts, int n_parts) {
    char path[PATH_MAX];
    if (!place_of_handle(handle, path)) return REAL(writev)(handle, parts, n_parts);
    enum outcome outcome = step("writev", path, 1);
    if (outcome == STOP) return -1;
    ssize_t done = REAL(writev)(handle, parts, outcome == SHORT ? n_parts / 2 : n_parts);
    return outcome == SHORT ? after_half() : done;
}

// numpy writes arrays through a FILE, whose own write cannot be reached from outside the C library
size_t fwrite(const void* bytes, size_t size, size_t n, FILE* file) {
    char path[PATH_MAX];
    if (!folder[0] || !place_of_handle(fileno(file), path)) return REAL(fwrite)(bytes, size, n, file);
    enum outcome outcome = step("fwrite", path, 1);
    if (outcome == STOP) return 0;
    size_t done = REAL(fwrite)(bytes, size, outcome == SHORT ? n / 2 : n, file);
    fflush(file);
    if (outcome == SHORT) after_half();
    return done;
}

// nothing is really synced: the machine stays on, and the shadow knows what would have lasted
static int sync_of(const char* name, int handle, int (*real_sync)(int)) {
    char path[PATH_MAX];
    if (!place_of_handle(handle, path)) return real_sync(handle);
    if (step(name, path, 0) != GO) return -1;
    keep_synced(path);
    return 0;
}

int fsync(int handle) { return sync_of("fsync", handle, REAL(fsync)); }
int fdatasync(int handle) { return sync_of("fdatasync", handle, REAL(fdatasync)); }

#define FTRUNCATE(name)                                                                   \
    int name(int handle, off64_t size) {                                                  \
        char path[PATH_MAX];                                                              \
        if (place_of_handle(handle, path) && step(#name, path, 0) != GO) return -1;       \
        return REAL(name)(handle, size);                                                  \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

int rename(const char* from, const char* to) {
    char path[PATH_MAX];
    if (place(AT_FDCWD, to, path)) {
        if (step("rename", path, 0) != GO) return -1;
        keep_inode(path);
    }
    return REAL(rename)(from, to);
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) {
    char path[PATH_MAX];
    if (place(to_folder, to, path)) {
        if (step("renameat", path, 0) != GO) return -1;
        keep_inode(path);
    }
    return REAL(renameat)(from_folder, from, to_folder, to);
}

int unlink(const char* name) {
    char path[PATH_MAX];
    if (place(AT_FDCWD, name, path) && !access(path, F_OK)) {
        if (step("unlink", path, 0) != GO) return -1;
        keep_inode(path);
    }
    return REAL(unlink)(name);
}

int unlinkat(int at_folder, const char* name, int flags) {
    char path[PATH_MAX];
    if (place(at_folder, name, path) && !access(path, F_OK)) {
        if (step("unlinkat", path, 0) != GO) return -1;
        keep_inode(path);
    }
    return REAL(unlinkat)(at_folder, name, flags);
}

int rmdir(const char* name) {
    char path[PATH_MAX];
    if (place(AT_FDCWD, name, path) && step("rmdir", path, 0) != GO) return -1;
    return REAL(rmdir)(name);
}

int link(const char* from, const char* to) {
    char path[PATH_MAX];
    if (place(AT_FDCWD, to, path) && step("link", path, 1) != GO) return -1;
    return REAL(link)(from, to);
}

int mkdir(const char* name, mode_t rights) {
    char path[PATH_MAX];
    if (place(AT_FDCWD, name, path) && access(path, F_OK) && step("mkdir", path, 1) != GO) return -1;
    return REAL(mkdir)(name, rights);
}

// Opening counts where it makes a file or empties one.
static int opening(const char* name, int at_folder, const char* file, int flags) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !place(at_folder, file, path)) return 0;
    if (!(flags & O_TRUNC) && !access(path, F_OK)) return 0;
    if (step(name, path, 1) == GO) return 0;
    if (mode == KILL_HALF) kill(getpid(), SIGKILL);
    if (errno != ENOSPC) errno = EIO;
    return -1;
}

#define RIGHTS(flags, last)                        \
    mode_t rights = 0;                             \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {       \
        va_list more;                              \
        va_start(more, last);                      \
        rights = va_arg(more, mode_t);             \
        va_end(more);                              \
    }

#define OPEN(name)                                                    \
    int name(const char* file, int flags, ...) {                      \
        RIGHTS(flags, flags)                                          \
        if (opening(#name, AT_FDCWD, file, flags)) return -1;         \
        return REAL(name)(file, flags, rights);                       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                  \
    int name(int at_folder, const char* file, int flags, ...) {       \
        RIGHTS(flags, flags)                                          \
        if (opening(#name, at_folder, file, flags)) return -1;        \
        return REAL(name)(at_folder, file, flags, rights);            \
    }
OPENAT(openat)
OPENAT(openat64)
