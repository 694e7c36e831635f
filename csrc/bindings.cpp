// The only file of the CPU module that knows Python: check, allocate, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernel.h"
#include "topk.h"

namespace py = pybind11;

namespace {

template <typename Value>
using Array = py::array_t<Value, py::array::c_style>;

std::string text(std::int64_t number) { return std::to_string(number); }

const xmr::Kernel& kernel_named(const std::string& name) {
    const auto& usable = xmr::kernels();
    if (name == "auto") return *usable.back();
    for (const xmr::Kernel* kernel : usable)
        if (name == kernel->name) return *kernel;
    throw py::value_error("isa is " + name + ", which this machine does not have");
}

int checked_threads(int threads) {
    if (threads < 0) throw py::value_error("threads is " + text(threads) + ", 0 (all) or more expected");
    return threads ? threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void check_size(const char* what, std::int64_t found, std::int64_t expected) {
    if (found != expected)
        throw py::value_error(std::string("the codes have ") + text(found) + " " + what + ", the rows ask for " + text(expected));
}

// Rows and what was made of them by `encode`; the codes may be missing.
struct Part {
    Array<float> rows;
    std::optional<Array<std::uint8_t>> codes;
    std::optional<Array<float>> blocks;
    std::optional<Array<float>> bounds;
    std::optional<Array<double>> mean;
    bool is_rotated;

    xmr::Segment segment() const {
        xmr::Segment segment{};
        segment.rows = rows.data();
        segment.n_rows = rows.shape(0);
        if (!codes) return segment;
        const std::int64_t n_blocks = xmr::n_blocks(rows.shape(0));
        check_size("bytes", codes->size(), n_blocks * xmr::block_bytes(rows.shape(1)) + xmr::CODES_TAIL);
        check_size("numbers of their blocks", blocks->size(), n_blocks * 4);
        check_size("norms of their rows", bounds->size(), n_blocks * xmr::BLOCK_ROWS * 2);
        if (mean) check_size("dimensions of their mean", mean->size(), rows.shape(1));
        segment.codes = codes->data();
        segment.blocks = reinterpret_cast<const xmr::BlockBound*>(blocks->data());
        segment.bounds = reinterpret_cast<const xmr::RowBound*>(bounds->data());
        segment.mean = mean ? mean->data() : nullptr;
        segment.is_rotated = is_rotated;
        return segment;
    }
};

// Scores, rows, and how many rows were scored from their float32 values.
py::tuple top_k(const Array<float>& queries, const std::vector<Part>& parts, std::int64_t k,
                const std::optional<Array<bool>>& allow, int threads, const std::string& isa) {
    const xmr::Kernel& kernel = kernel_named(isa);
    const int n_threads = checked_threads(threads);
    if (queries.ndim() != 2) throw py::value_error("queries have " + text(queries.ndim()) + " axes, 2 expected");
    if (k < 1) throw py::value_error("k is " + text(k) + ", at least 1 expected");
    const std::int64_t dim = queries.shape(1);
    std::vector<xmr::Segment> segments;
    std::int64_t n_rows = 0;
    bool is_coded = kernel.multiply != nullptr;
    for (const Part& part : parts) {
        if (part.rows.ndim() != 2) throw py::value_error("the gallery has " + text(part.rows.ndim()) + " axes, 2 expected");
        if (part.rows.shape(1) != dim)
            throw py::value_error("queries have " + text(dim) + " columns, the gallery has " + text(part.rows.shape(1)));
        segments.push_back(part.segment());
        n_rows += part.rows.shape(0);
        is_coded = is_coded && part.codes;
    }
    if (allow && (allow->ndim() != 1 || allow->shape(0) != n_rows))
        throw py::value_error("allow has " + text(allow->size()) + " flags, the gallery has " + text(n_rows) + " rows");

    const std::int64_t n_found = std::min(k, n_rows);
    Array<float> scores({static_cast<py::ssize_t>(queries.shape(0)), static_cast<py::ssize_t>(n_found)});
    Array<std::int64_t> rows({static_cast<py::ssize_t>(queries.shape(0)), static_cast<py::ssize_t>(n_found)});
    const xmr::TopkArguments arguments{
        queries.data(),
        segments.data(),
        allow ? reinterpret_cast<const std::uint8_t*>(allow->data()) : nullptr,
        queries.shape(0),
        static_cast<std::int64_t>(segments.size()),
        dim,
        n_found,
        n_threads,
        scores.mutable_data(),
        rows.mutable_data(),
    };
    std::int64_t n_scored = 0;
    if (n_found > 0 && queries.shape(0) > 0) {
        py::gil_scoped_release released;
        if (is_coded)
            n_scored = xmr::topk_coded(arguments, kernel);
        else
            xmr::topk_exhaustive(arguments, kernel);
    }
    return py::make_tuple(scores, rows, n_scored);
}

// An array that starts at a cache line, as codes in a file do: a block that straddles lines takes twice the loads.
Array<std::uint8_t> aligned_bytes(std::int64_t size) {
    constexpr std::uintptr_t LINE = 64;
    Array<std::uint8_t> whole(static_cast<py::ssize_t>(size + LINE));
    std::uint8_t* start = whole.mutable_data() + (LINE - reinterpret_cast<std::uintptr_t>(whole.data()) % LINE) % LINE;
    return Array<std::uint8_t>({static_cast<py::ssize_t>(size)}, start, whole);
}

py::tuple encode(const Array<float>& rows, const std::optional<Array<double>>& mean, bool is_rotated, int threads,
                 const std::string& isa) {
    const xmr::Kernel& kernel = kernel_named(isa);
    const int n_threads = checked_threads(threads);
    if (rows.ndim() != 2) throw py::value_error("the gallery has " + text(rows.ndim()) + " axes, 2 expected");
    const std::int64_t n_rows = rows.shape(0), dim = rows.shape(1), n_blocks = xmr::n_blocks(n_rows);
    if (dim < 1 || dim > xmr::MAX_DIM)
        throw py::value_error("the gallery has " + text(dim) + " columns, 1 to " + text(xmr::MAX_DIM) + " can be coded");
    if (mean) check_size("dimensions of their mean", mean->size(), dim);
    Array<std::uint8_t> codes = aligned_bytes(n_blocks * xmr::block_bytes(dim) + xmr::CODES_TAIL);
    Array<float> blocks({static_cast<py::ssize_t>(n_blocks), py::ssize_t{4}});
    Array<float> bounds({static_cast<py::ssize_t>(n_blocks * xmr::BLOCK_ROWS), py::ssize_t{2}});
    const xmr::EncodeArguments arguments{
        rows.data(),
        mean ? mean->data() : nullptr,
        is_rotated,
        n_rows,
        dim,
        n_threads,
        codes.mutable_data(),
        reinterpret_cast<xmr::BlockBound*>(blocks.mutable_data()),
        reinterpret_cast<xmr::RowBound*>(bounds.mutable_data()),
    };
    {
        py::gil_scoped_release released;
        xmr::encode(arguments, kernel);
    }
    return py::make_tuple(codes, blocks, bounds);
}

std::vector<std::string> kernels() {
    std::vector<std::string> names;
    for (const xmr::Kernel* kernel : xmr::kernels()) names.emplace_back(kernel->name);
    return names;
}

}  // namespace

PYBIND11_MODULE(_topk, module) {
    module.doc() = "Exact top-k by inner product on the CPU.";
    py::class_<Part>(module, "Part", "Rows of a gallery and their codes.")
        .def(py::init([](const Array<float>& rows, const std::optional<Array<std::uint8_t>>& codes,
                         const std::optional<Array<float>>& blocks, const std::optional<Array<float>>& bounds,
                         const std::optional<Array<double>>& mean, bool is_rotated) {
                 return Part{rows, codes, blocks, bounds, mean, is_rotated};
             }),
             py::arg("rows").noconvert(), py::arg("codes").noconvert() = py::none(), py::arg("blocks").noconvert() = py::none(),
             py::arg("bounds").noconvert() = py::none(), py::arg("mean").noconvert() = py::none(), py::arg("is_rotated") = false);
    module.def("top_k", &top_k, py::arg("queries").noconvert(), py::arg("parts"), py::arg("k"), py::arg("allow") = py::none(),
               py::arg("threads") = 0, py::arg("isa") = "auto");
    module.def("encode", &encode, py::arg("rows").noconvert(), py::arg("mean").noconvert() = py::none(),
               py::arg("is_rotated") = false, py::arg("threads") = 0, py::arg("isa") = "auto");
    module.def("kernels", &kernels);
    module.attr("MAX_DIM") = xmr::MAX_DIM;
}
