// The search by way of the codes.
//
// Codes are read in panels that stay in the cache while all queries pass over them. Rows that may be among the best
// become candidates of their query; where a buffer of candidates is full, the k-th best lower bound in it becomes the
// threshold, shared by all threads. In the end the candidates are scored from the float32 rows, best bound first.
#include <atomic>
#include <bit>
#include <cmath>
#include <memory>
#include <numeric>

#include "best.h"
#include "kernel.h"
#include "stretch.h"
#include "threads.h"

namespace xmr {
namespace {

// Starts to bring a row into the cache, unless it would have to come from a file.
void prefetch(const float* row, std::int64_t dim) {
    constexpr std::int64_t LINE = 16;  // floats
    for (std::int64_t d = 0; d < dim; d += LINE) __builtin_prefetch(row + d);
}

// A row that may be among the best of its query. Once it is scored both bounds are the score.
struct Candidate {
    double upper;
    double lower;
    std::uint64_t row : 63;
    std::uint64_t is_scored : 1;
};

bool has_higher_lower(const Candidate& a, const Candidate& b) { return a.lower > b.lower; }

bool has_higher_upper(const Candidate& a, const Candidate& b) {
    return a.upper > b.upper || (a.upper == b.upper && a.row < b.row);
}

// Queries coded for the segments that are rotated, or for those that are not.
struct CodedQueries {
    std::vector<QueryTile> tiles;     // n_tiles(dim) for each group
    std::vector<QueryBounds> groups;  // every thread sets `needed` in a copy of its own
};

// What a segment's mean does to the scores of a query.
struct Shift {
    double product = 0;  // <q, m>
    double slack = 0;    // SLACK ||q|| ||m||
};

// The queries that are searched together, and what all threads share.
struct Pass {
    Pass(const TopkArguments& given, const Kernel& with, std::int64_t first, std::int64_t n, std::int64_t n_candidates)
        : arguments(given), kernel(with), first_query(first), n_queries(n), capacity(n_candidates), thresholds(n) {}

    const TopkArguments& arguments;
    const Kernel& kernel;
    std::int64_t first_query;
    std::int64_t n_queries;
    std::int64_t capacity;                 // candidates of a query and thread
    std::vector<double> values;            // (n_queries, dim)
    CodedQueries coded[2];                 // plain, rotated
    std::vector<Shift> shifts;             // (n_segments, n_queries)
    std::vector<std::int64_t> first_rows;  // (n_segments) numbers of their first rows
    std::vector<Stretch> stretches;
    std::vector<std::atomic<double>> thresholds;  // (n_queries) the k-th best score is not lower
    std::atomic<std::size_t> next_stretch = 0;
    std::atomic<std::int64_t> next_query = 0;
    std::atomic<std::int64_t> n_scored = 0;

    const double* query(std::int64_t q) const { return &values[q * arguments.dim]; }

    const float* row(std::int64_t number) const {
        const auto segment = std::upper_bound(first_rows.begin(), first_rows.end(), number) - first_rows.begin() - 1;
        return arguments.segments[segment].rows + (number - first_rows[segment]) * arguments.dim;
    }
};

// Codes of one query, written to its place among `coded`.
void encode_query(std::vector<double> values, std::int64_t place, CodedQueries& coded) {
    const auto dim = static_cast<std::int64_t>(values.size());
    const auto larger = [](double a, double b) { return std::max(a, std::fabs(b)); };
    const double scale = std::accumulate(values.begin(), values.end(), 0.0, larger) / 127;
    const double inverse = scale > 0 ? 1 / scale : 0;
    QueryTile* tiles = &coded.tiles[place / GROUP_QUERIES * n_tiles(dim)];
    double squares = 0, code_squares = 0, residual_squares = 0, sum = 0;
    for (std::int64_t d = 0; d < dim; ++d) {
        const double code = std::clamp(std::nearbyint(values[d] * inverse), -127.0, 127.0);
        const double residual = values[d] - scale * code;
        squares += values[d] * values[d];
        code_squares += code * code;
        residual_squares += residual * residual;
        sum += code;
        tiles[d / TILE_DIMS].codes[place % GROUP_QUERIES * TILE_DIMS + d % TILE_DIMS] = static_cast<std::int8_t>(code);
    }
    QueryBounds& group = coded.groups[place / GROUP_QUERIES];
    const std::int64_t i = place % GROUP_QUERIES;
    group.scale[i] = scale;
    group.inverse_scale[i] = 1 / scale;
    group.code_norm[i] = scale * std::sqrt(code_squares);
    group.residual[i] = std::sqrt(residual_squares) + SLACK * std::sqrt(squares);
    group.offset[i] = 128 * sum;
}

// <a, b>; the slack of the bound covers any order of summing.
double inner_product(const double* a, const double* b, std::int64_t dim) {
    double sums[LANES] = {};
    std::int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (std::int64_t lane = 0; lane < LANES; ++lane) sums[lane] += a[d + lane] * b[d + lane];
    for (std::int64_t lane = 0; d + lane < dim; ++lane) sums[lane] += a[d + lane] * b[d + lane];
    return std::accumulate(sums, sums + LANES, 0.0);
}

double norm(const double* values, std::int64_t dim) { return std::sqrt(inner_product(values, values, dim)); }

CodedQueries room_for_queries(const Pass& pass) {
    const std::int64_t n_groups = (pass.n_queries + GROUP_QUERIES - 1) / GROUP_QUERIES;
    CodedQueries coded{std::vector<QueryTile>(n_groups * n_tiles(pass.arguments.dim)),
                       std::vector<QueryBounds>(n_groups)};
    for (std::int64_t q = pass.n_queries; q < n_groups * GROUP_QUERIES; ++q) {
        coded.groups.back().needed[q % GROUP_QUERIES] = INFINITE;
        coded.groups.back().inverse_scale[q % GROUP_QUERIES] = 1;
    }
    return coded;
}

// What is known of a query before any row is read.
void prepare_query(Pass& pass, std::int64_t q, const std::vector<double>& mean_norms) {
    const TopkArguments& a = pass.arguments;
    for (const bool is_rotated : {false, true}) {
        if (pass.coded[is_rotated].groups.empty()) continue;
        std::vector<double> values(pass.query(q), pass.query(q) + a.dim);
        if (is_rotated) rotate(values.data(), a.dim);
        encode_query(std::move(values), q, pass.coded[is_rotated]);
    }
    const double slack = SLACK * norm(pass.query(q), a.dim);
    for (std::int64_t s = 0; s < a.n_segments; ++s)
        if (const double* mean = a.segments[s].mean)
            pass.shifts[s * pass.n_queries + q] = {inner_product(pass.query(q), mean, a.dim), slack * mean_norms[s]};
}

void prepare(Pass& pass, std::int64_t n_threads) {
    const TopkArguments& a = pass.arguments;
    const float* queries = a.queries + pass.first_query * a.dim;
    pass.values.assign(queries, queries + pass.n_queries * a.dim);
    pass.shifts.resize(a.n_segments * pass.n_queries);
    std::vector<double> mean_norms;
    std::int64_t first_row = 0;
    for (std::int64_t s = 0; s < a.n_segments; ++s) {
        const Segment& segment = a.segments[s];
        pass.first_rows.push_back(first_row);
        first_row += segment.n_rows;
        mean_norms.push_back(segment.mean ? norm(segment.mean, a.dim) : 0);
        CodedQueries& coded = pass.coded[segment.is_rotated];
        if (coded.groups.empty()) coded = room_for_queries(pass);
    }
    for (auto& threshold : pass.thresholds) threshold = -INFINITE;
    on_threads(n_threads, [&](std::int64_t t) {
        // whole groups, so that no two threads write to one
        for (std::int64_t group = t; group * GROUP_QUERIES < pass.n_queries; group += n_threads)
            for (std::int64_t q = group * GROUP_QUERIES; q < std::min((group + 1) * GROUP_QUERIES, pass.n_queries); ++q)
                prepare_query(pass, q, mean_norms);
    });
}

// Puts their scores in place of the bounds of the candidates from `first` to `last`.
void score(Pass& pass, std::int64_t q, std::vector<Candidate>::iterator first, std::vector<Candidate>::iterator last) {
    const std::int64_t dim = pass.arguments.dim;
    const auto row_of = [&](const Candidate& candidate) { return pass.row(static_cast<std::int64_t>(candidate.row)); };
    std::int64_t n_scored = 0;
    for (auto at = first; at != last; ++at) {
        if (at + 1 != last && !at[1].is_scored) prefetch(row_of(at[1]), dim);
        if (at->is_scored) continue;
        at->upper = at->lower = pass.kernel.score(pass.query(q), row_of(*at), dim);
        at->is_scored = 1;
        ++n_scored;
    }
    pass.n_scored += n_scored;
}

// Leaves the k best of the candidates, scored: scores them in order of their upper bounds, some at a time, until no
// other can be among those.
void resolve(Pass& pass, std::int64_t q, std::vector<Candidate>& candidates) {
    constexpr std::ptrdiff_t AT_ONCE = 8;
    std::sort(candidates.begin(), candidates.end(), has_higher_upper);
    Best best(pass.arguments.k);
    for (auto at = candidates.begin(); at != candidates.end() && at->upper >= best.worst();) {
        const auto last = at + std::min(AT_ONCE, candidates.end() - at);
        score(pass, q, at, last);
        for (; at != last; ++at) best.offer({at->upper, static_cast<std::int64_t>(at->row)});
    }
    candidates.clear();
    for (const auto& [score, row] : best.rows())
        candidates.push_back({score, score, static_cast<std::uint64_t>(row), 1});
}

// Raises the threshold of a query to the k-th largest lower bound among its candidates; drops those under it.
double tighten(Pass& pass, std::int64_t q, std::vector<Candidate>& candidates) {
    const auto k = static_cast<std::size_t>(pass.arguments.k);
    std::atomic<double>& shared = pass.thresholds[q];
    double threshold = shared;
    if (candidates.size() >= k) {
        std::nth_element(candidates.begin(), candidates.begin() + (k - 1), candidates.end(), has_higher_lower);
        const double reached = candidates[k - 1].lower;
        while (threshold < reached && !shared.compare_exchange_weak(threshold, reached)) continue;
        threshold = std::max(threshold, reached);
    }
    std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.upper < threshold; });
    return threshold;
}

// The state that a kernel wants of its thread, as long as this lives.
class Begun {
public:
    Begun(const Kernel& kernel, std::int64_t n_queries) : kernel_(kernel) {
        if (kernel_.begin) kernel_.begin(n_queries);
    }
    ~Begun() {
        if (kernel_.end) kernel_.end();
    }
    Begun(const Begun&) = delete;

private:
    const Kernel& kernel_;
};

// One thread's share of a pass.
class Scanner {
public:
    explicit Scanner(Pass& pass)
        : pass_(pass),
          panel_blocks_(std::clamp<std::int64_t>(PANEL_BYTES / block_bytes(pass.arguments.dim), 2, 64)),
          candidates_(pass.n_queries),
          thresholds_(pass.n_queries),
          groups_{pass.coded[0].groups, pass.coded[1].groups} {}

    void run() {
        const Begun begun(pass_.kernel, pass_.n_queries);
        const auto& all = pass_.stretches;
        for (std::size_t i = pass_.next_stretch++; i < all.size(); i = pass_.next_stretch++) scan(all[i]);
    }

    std::vector<Candidate>& candidates(std::int64_t q) { return candidates_[q]; }

private:
    static constexpr std::int64_t PANEL_BYTES = 64 << 10;  // of codes: they stay in the L2 cache with the queries

    struct LiveBlock {
        std::int64_t number;
        std::uint32_t allowed;
    };

    void scan(const Stretch& stretch) {
        stretch_ = &stretch;
        for (std::int64_t q = 0; q < pass_.n_queries; ++q) set_threshold(q, pass_.thresholds[q]);
        blocks_.clear();
        for (std::int64_t block = stretch.first_block; block < stretch.last_block; ++block)
            if (const std::uint32_t allowed = allowed_rows(pass_.arguments, stretch, block))
                blocks_.push_back({block, allowed});
        const auto n = static_cast<std::int64_t>(blocks_.size());
        for (std::int64_t first = 0; first < n; first += panel_blocks_)
            scan_panel(first, std::min(first + panel_blocks_, n));
    }

    void scan_panel(std::int64_t first, std::int64_t last) {
        const auto n_groups = static_cast<std::int64_t>(groups().size());
        // memory is read faster in four streams than in two
        const std::int64_t most = n_groups == 1 ? 4 : 2;
        for (std::int64_t group = 0; group < n_groups; group += 2)
            for (std::int64_t block = first, n; block < last; block += n) {
                n = std::min(most, std::int64_t{1} << (std::bit_width(static_cast<std::uint64_t>(last - block)) - 1));
                multiply(group, std::min<std::int64_t>(2, n_groups - group), block, n);
            }
    }

    void multiply(std::int64_t group, std::int64_t n_groups, std::int64_t block, std::int64_t n_blocks) {
        const std::int64_t dim = pass_.arguments.dim;
        Product product{&pass_.coded[is_rotated()].tiles[group * n_tiles(dim)],
                        n_groups,
                        pass_.n_queries - group * GROUP_QUERIES,
                        {},
                        n_blocks,
                        dim,
                        nullptr,
                        0,
                        dots_};
        for (std::int64_t b = 0; b < n_blocks; ++b) product.blocks[b] = codes(block + b);
        fetch_slice(group, block, product);
        pass_.kernel.multiply(product);
        for (std::int64_t g = 0; g < n_groups; ++g)
            for (std::int64_t b = 0; b < n_blocks; ++b) {
                const std::int32_t* dots = dots_ + (g * n_blocks + b) * TILE_DOTS;
                const BlockBound& bound = stretch_->segment->blocks[blocks_[block + b].number];
                if (pass_.kernel.select(dots, groups()[group + g], bound, hits_))
                    take_hits(dots, group + g, blocks_[block + b]);
            }
    }

    // While the queries pass over one panel the next one comes into the cache, a slice with every product. Where blocks
    // are left out some slices are of the wrong block, which costs no more than their reading.
    void fetch_slice(std::int64_t group, std::int64_t block, Product& product) {
        const auto n_groups = static_cast<std::int64_t>(groups().size());
        const std::int64_t next = block + panel_blocks_;
        if (n_groups == 1 || next + product.n_blocks > static_cast<std::int64_t>(blocks_.size())) return;
        const std::int64_t n_slices = (n_groups + 1) / 2, tiles = n_tiles(product.dim);
        const std::int64_t slice = product.n_blocks * block_bytes(product.dim) / n_slices;
        product.ahead = codes(next) + group / 2 * slice;
        product.ahead_bytes = slice / tiles;
    }

    // The hits of a tile become candidates.
    void take_hits(const std::int32_t* dots, std::int64_t group, const LiveBlock& block) {
        const std::int64_t n = std::min(GROUP_QUERIES, pass_.n_queries - group * GROUP_QUERIES);
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t q = group * GROUP_QUERIES + i;
            for (std::uint32_t rest = hits_[i] & block.allowed; rest; rest &= rest - 1) {
                const int row = std::countr_zero(rest);
                take_row(q, dots[i * BLOCK_ROWS + row], block.number, row);
            }
        }
    }

    void take_row(std::int64_t q, std::int32_t dot, std::int64_t block, std::int64_t row) {
        const Segment& segment = *stretch_->segment;
        const QueryBounds& group = groups()[q / GROUP_QUERIES];
        const std::int64_t i = q % GROUP_QUERIES, of_segment = block * BLOCK_ROWS + row;
        const RowBound& bound = segment.bounds[of_segment];
        const Shift& shift = pass_.shifts[stretch_->segment_number * pass_.n_queries + q];
        const double middle = shift.product + group.scale[i] * segment.blocks[block].scale * (dot - group.offset[i]);
        const double width = group.code_norm[i] * bound.residual + group.residual[i] * bound.norm + shift.slack;
        const bool is_bounded = width < INFINITE;
        const double upper = is_bounded ? middle + width : INFINITE;
        if (upper < thresholds_[q]) return;
        std::vector<Candidate>& candidates = candidates_[q];
        const double lower = is_bounded ? middle - width : -INFINITE;
        candidates.push_back({upper, lower, static_cast<std::uint64_t>(stretch_->first_row + of_segment), 0});
        if (static_cast<std::int64_t>(candidates.size()) == pass_.capacity) make_room(q);
    }

    void make_room(std::int64_t q) {
        std::vector<Candidate>& candidates = candidates_[q];
        const auto of_best = candidates.begin() + pass_.arguments.k;
        std::nth_element(candidates.begin(), of_best - 1, candidates.end(), has_higher_upper);
        score(pass_, q, candidates.begin(), of_best);
        tighten(pass_, q, candidates);
        if (static_cast<std::int64_t>(candidates.size()) > pass_.capacity / 2) resolve(pass_, q, candidates);
        set_threshold(q, tighten(pass_, q, candidates));
    }

    // What the bound of a row of this stretch must reach.
    void set_threshold(std::int64_t q, double threshold) {
        const Shift& shift = pass_.shifts[stretch_->segment_number * pass_.n_queries + q];
        thresholds_[q] = threshold;
        groups()[q / GROUP_QUERIES].needed[q % GROUP_QUERIES] = threshold - shift.product - shift.slack;
    }

    bool is_rotated() const { return stretch_->segment->is_rotated; }
    std::vector<QueryBounds>& groups() { return groups_[is_rotated()]; }
    const std::uint8_t* codes(std::int64_t live) const {
        return stretch_->segment->codes + blocks_[live].number * block_bytes(pass_.arguments.dim);
    }

    Pass& pass_;
    const Stretch* stretch_ = nullptr;
    std::int64_t panel_blocks_;
    std::vector<LiveBlock> blocks_;                   // of the stretch, those with a row that may be returned
    std::vector<std::vector<Candidate>> candidates_;  // by query
    std::vector<double> thresholds_;                  // by query, as they were last read
    std::vector<QueryBounds> groups_[2];              // plain, rotated
    std::uint16_t hits_[GROUP_QUERIES];
    alignas(64) std::int32_t dots_[4 * TILE_DOTS] = {};
};

// Codes of so many queries stay in the L2 cache beside a panel, and their candidates within some tens of MB.
std::int64_t queries_per_pass(const TopkArguments& a, std::int64_t capacity) {
    constexpr std::int64_t CODE_BYTES = 1 << 20, CANDIDATE_BYTES = 64 << 20;
    const std::int64_t by_codes = CODE_BYTES / (n_tiles(a.dim) * TILE_DIMS);
    const std::int64_t by_candidates = CANDIDATE_BYTES / (capacity * static_cast<std::int64_t>(sizeof(Candidate)));
    return std::clamp<std::int64_t>(std::min(by_codes, by_candidates), GROUP_QUERIES, 2048) / GROUP_QUERIES *
           GROUP_QUERIES;
}

// More threads than there is work for only cost their start.
std::int64_t useful_threads(const TopkArguments& a, std::int64_t n_queries) {
    constexpr std::int64_t WORTH_A_THREAD = 1 << 20;  // bytes of codes times groups of queries
    const std::int64_t n_groups = (n_queries + GROUP_QUERIES - 1) / GROUP_QUERIES;
    return std::clamp<std::int64_t>(total_blocks(a) * block_bytes(a.dim) * n_groups / WORTH_A_THREAD, 1, a.n_threads);
}

void finish(Pass& pass, const std::vector<std::unique_ptr<Scanner>>& scanners, std::int64_t q) {
    std::vector<Candidate> candidates;
    for (const auto& scanner : scanners)
        candidates.insert(candidates.end(), scanner->candidates(q).begin(), scanner->candidates(q).end());
    tighten(pass, q, candidates);
    resolve(pass, q, candidates);
    std::vector<Scored> best;
    for (const Candidate& candidate : candidates)
        best.push_back({candidate.upper, static_cast<std::int64_t>(candidate.row)});
    write_best(pass.arguments, pass.first_query + q, std::move(best));
}

std::int64_t search(Pass& pass) {
    const std::int64_t n_threads = useful_threads(pass.arguments, pass.n_queries);
    prepare(pass, n_threads);
    const std::int64_t share = total_blocks(pass.arguments) / (8 * n_threads);
    pass.stretches = stretches(pass.arguments, std::clamp<std::int64_t>(share, 16, 1024));
    std::vector<std::unique_ptr<Scanner>> scanners(n_threads);
    on_threads(n_threads, [&](std::int64_t t) {
        scanners[t] = std::make_unique<Scanner>(pass);
        scanners[t]->run();
    });
    on_threads(n_threads, [&](std::int64_t) {
        for (std::int64_t q = pass.next_query++; q < pass.n_queries; q = pass.next_query++) finish(pass, scanners, q);
    });
    return pass.n_scored;
}

}  // namespace

std::int64_t topk_coded(const TopkArguments& a, const Kernel& kernel) {
    // few, so that the threshold follows closely; many times k, so that it is seldom raised for nothing
    const std::int64_t capacity = std::max<std::int64_t>(128, std::min(8 * a.k, 4 * a.k + 4096));
    const std::int64_t n_each = queries_per_pass(a, capacity);
    const std::int64_t n_rows = total_blocks(a) * BLOCK_ROWS;
    if (capacity >= n_rows) {  // every row would be a candidate
        topk_exhaustive(a, kernel);
        return 0;
    }
    std::int64_t n_scored = 0;
    for (std::int64_t first = 0; first < a.n_queries; first += n_each) {
        Pass pass(a, kernel, first, std::min(n_each, a.n_queries - first), capacity);
        n_scored += search(pass);
    }
    return n_scored;
}

}  // namespace xmr
