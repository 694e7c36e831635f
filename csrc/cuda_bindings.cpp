// The only file of the CUDA kernels that knows Python: check, allocate, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "topk.h"
#include "topk_cuda.h"

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Flags = py::array_t<bool, py::array::c_style>;

xmr::CudaCoding coding_of(const std::string& dtype) {
    if (dtype == "int8") return xmr::CudaCoding::int8;
    if (dtype == "float16") return xmr::CudaCoding::float16;
    throw py::value_error("dtype is '" + dtype + "', 'int8' or 'float16' expected");
}

std::unique_ptr<xmr::CudaGallery> make_gallery(const std::vector<Floats>& segments, const std::string& dtype) {
    const xmr::CudaCoding coding = coding_of(dtype);
    if (segments.empty()) throw py::value_error("0 segments found, at least 1 expected");
    std::vector<xmr::RowSpan> spans;
    for (std::size_t i = 0; i < segments.size(); ++i) {
        const std::string name = "segment " + std::to_string(i);
        if (segments[i].ndim() != 2)
            throw py::value_error(name + ": " + std::to_string(segments[i].ndim()) + " axes found, 2 expected");
        if (segments[i].shape(1) != segments[0].shape(1))
            throw py::value_error(name + " has " + std::to_string(segments[i].shape(1)) + " columns, segment 0 has " +
                                  std::to_string(segments[0].shape(1)));
        spans.push_back({segments[i].data(), segments[i].shape(0)});
    }
    const std::int64_t dim = segments[0].shape(1);
    if (dim > xmr::MAX_DIM)
        throw py::value_error("the gallery has " + std::to_string(dim) + " columns, at most " +
                              std::to_string(xmr::MAX_DIM) + " expected");
    py::gil_scoped_release released;
    return std::make_unique<xmr::CudaGallery>(spans, dim, coding);
}

py::tuple top_k(xmr::CudaGallery& gallery, const Floats& queries, std::int64_t k, const std::optional<Flags>& allow) {
    if (queries.ndim() != 2)
        throw py::value_error("queries: " + std::to_string(queries.ndim()) + " axes found, 2 expected");
    if (queries.shape(1) != gallery.dim())
        throw py::value_error("queries have " + std::to_string(queries.shape(1)) + " columns, the gallery has " +
                              std::to_string(gallery.dim()));
    if (k < 1) throw py::value_error("k is " + std::to_string(k) + ", at least 1 expected");
    if (allow && (allow->ndim() != 1 || allow->shape(0) != gallery.n_rows()))
        throw py::value_error("allow has " + std::to_string(allow->size()) + " flags, the gallery has " +
                              std::to_string(gallery.n_rows()) + " rows");
    const std::int64_t n_found = std::min(k, gallery.n_rows());
    if (n_found > xmr::CUDA_MAX_K)
        throw py::value_error("k is " + std::to_string(k) + ", at most " + std::to_string(xmr::CUDA_MAX_K) +
                              " expected on a GPU");

    py::array_t<float> scores({queries.shape(0), static_cast<py::ssize_t>(n_found)});
    py::array_t<std::int64_t> rows({queries.shape(0), static_cast<py::ssize_t>(n_found)});
    if (scores.size() > 0) {
        const auto* allowed = allow ? reinterpret_cast<const std::uint8_t*>(allow->data()) : nullptr;
        const float* query_rows = queries.data();
        float* found_scores = scores.mutable_data();
        std::int64_t* found_rows = rows.mutable_data();
        py::gil_scoped_release released;
        gallery.top_k(query_rows, queries.shape(0), n_found, allowed, found_scores, found_rows);
    }
    return py::make_tuple(scores, rows);
}

}  // namespace

PYBIND11_MODULE(_topk_cuda, module) {
    module.doc() = "Exact top-k by inner product on NVIDIA GPUs.";
    module.def("device_count", &xmr::cuda_device_count);
    py::class_<xmr::CudaGallery>(module, "Gallery")
        .def(py::init(&make_gallery), py::arg("segments").noconvert(), py::arg("dtype") = "int8")
        .def("__len__", &xmr::CudaGallery::n_rows)
        .def("top_k", &top_k, py::arg("queries").noconvert(), py::arg("k"), py::arg("allow") = py::none());
}
