// The only file of the CPU module that knows Python: check, allocate, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <thread>
#include <utility>
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
        throw py::value_error(std::string("the codes have ") + text(found) + " " + what + ", the rows ask for " +
                              text(expected));
}

void check_codable(std::int64_t dim) {
    if (dim < 1 || dim > xmr::MAX_DIM)
        throw py::value_error("the gallery has " + text(dim) + " columns, 1 to " + text(xmr::MAX_DIM) +
                              " can be coded");
}

// The squares of a mean's dimensions must not leave the range of double: the bound is computed from them.
void check_mean(const std::optional<Array<double>>& mean, std::int64_t dim) {
    if (!mean) return;
    check_size("dimensions of their mean", mean->size(), dim);
    for (std::int64_t d = 0; d < dim; ++d)
        if (const double value = std::fabs(mean->data()[d]); value != 0 && !(value > 0x1p-300 && value < 0x1p300))
            throw py::value_error("dimension " + text(d) + " of the mean is " + std::to_string(mean->data()[d]) +
                                  ", 0 or a magnitude between 2^-300 and 2^300 expected");
}

// Rows with the codes that `encode` made of them, or without.
class Segment {
public:
    Segment(Array<float> rows, std::optional<Array<std::uint8_t>> codes, std::optional<Array<float>> blocks,
            std::optional<Array<float>> bounds, std::optional<Array<double>> mean, bool is_rotated)
        : rows_(std::move(rows)),
          codes_(std::move(codes)),
          blocks_(std::move(blocks)),
          bounds_(std::move(bounds)),
          mean_(std::move(mean)),
          is_rotated_(is_rotated) {
        if (rows_.ndim() != 2) throw py::value_error("the gallery has " + text(rows_.ndim()) + " axes, 2 expected");
        if (codes_.has_value() != blocks_.has_value() || codes_.has_value() != bounds_.has_value())
            throw py::value_error("codes, blocks and bounds belong together, some are missing");
        if (!codes_) return;
        check_codable(dim());
        const std::int64_t n_blocks = xmr::n_blocks(n_rows());
        check_size("bytes", codes_->size(), n_blocks * xmr::block_bytes(dim()) + xmr::CODES_TAIL);
        check_size("numbers of their blocks", blocks_->size(), n_blocks * 4);
        check_size("norms of their rows", bounds_->size(), n_blocks * xmr::BLOCK_ROWS * 2);
        check_mean(mean_, dim());
    }

    std::int64_t n_rows() const { return rows_.shape(0); }
    std::int64_t dim() const { return rows_.shape(1); }
    bool is_coded() const { return codes_.has_value(); }

    xmr::Segment segment() const {
        xmr::Segment segment{};
        segment.rows = rows_.data();
        segment.n_rows = n_rows();
        if (!codes_) return segment;
        segment.codes = codes_->data();
        segment.blocks = reinterpret_cast<const xmr::BlockBound*>(blocks_->data());
        segment.bounds = reinterpret_cast<const xmr::RowBound*>(bounds_->data());
        segment.mean = mean_ ? mean_->data() : nullptr;
        segment.is_rotated = is_rotated_;
        return segment;
    }

private:
    Array<float> rows_;
    std::optional<Array<std::uint8_t>> codes_;
    std::optional<Array<float>> blocks_;
    std::optional<Array<float>> bounds_;
    std::optional<Array<double>> mean_;
    bool is_rotated_;
};

// Scores, rows, and how many rows were scored from their float32 values.
py::tuple top_k(const Array<float>& queries, const std::vector<Segment>& gallery, std::int64_t k,
                const std::optional<Array<bool>>& allow, int threads, const std::string& isa) {
    const xmr::Kernel& kernel = kernel_named(isa);
    const int n_threads = checked_threads(threads);
    if (queries.ndim() != 2) throw py::value_error("queries have " + text(queries.ndim()) + " axes, 2 expected");
    if (k < 1) throw py::value_error("k is " + text(k) + ", at least 1 expected");
    const std::int64_t dim = queries.shape(1);
    std::vector<xmr::Segment> segments;
    std::int64_t n_rows = 0;
    bool is_coded = kernel.multiply != nullptr;
    for (const Segment& segment : gallery) {
        if (segment.dim() != dim)
            throw py::value_error("queries have " + text(dim) + " columns, the gallery has " + text(segment.dim()));
        segments.push_back(segment.segment());
        n_rows += segment.n_rows();
        is_coded = is_coded && segment.is_coded();
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
        throw py::value_error("the gallery has " + text(dim) + " columns, 1 to " + text(xmr::MAX_DIM) +
                              " can be coded");
    check_mean(mean, dim);
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
    py::class_<Segment>(module, "Segment", "Rows of a gallery and their codes.")
        .def(py::init<Array<float>, std::optional<Array<std::uint8_t>>, std::optional<Array<float>>,
                      std::optional<Array<float>>, std::optional<Array<double>>, bool>(),
             py::arg("rows").noconvert(), py::arg("codes").noconvert() = py::none(),
             py::arg("blocks").noconvert() = py::none(), py::arg("bounds").noconvert() = py::none(),
             py::arg("mean").noconvert() = py::none(), py::arg("is_rotated") = false);
    module.def("top_k", &top_k, py::arg("queries").noconvert(), py::arg("gallery"), py::arg("k"),
               py::arg("allow") = py::none(), py::arg("threads") = 0, py::arg("isa") = "auto");
    module.def("encode", &encode, py::arg("rows").noconvert(), py::arg("mean").noconvert() = py::none(),
               py::arg("is_rotated") = false, py::arg("threads") = 0, py::arg("isa") = "auto");
    module.def("kernels", &kernels);
    module.attr("MAX_DIM") = xmr::MAX_DIM;
    module.attr("BLOCK_ROWS") = xmr::BLOCK_ROWS;
    module.attr("CODES_TAIL") = xmr::CODES_TAIL;
}
