// The only file that knows Python: check, allocate, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <thread>

#include "topk.h"

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Flags = py::array_t<bool, py::array::c_style>;

py::tuple top_k(const Floats& queries, const Floats& gallery, std::int64_t k, const std::optional<Flags>& allow,
                int threads) {
    if (queries.ndim() != 2 || gallery.ndim() != 2)
        throw py::value_error("queries have " + std::to_string(queries.ndim()) + " axes and the gallery has " +
                              std::to_string(gallery.ndim()) + ", both must have 2");
    if (queries.shape(1) != gallery.shape(1))
        throw py::value_error("queries have " + std::to_string(queries.shape(1)) + " columns, the gallery has " +
                              std::to_string(gallery.shape(1)));
    if (k < 1) throw py::value_error("k is " + std::to_string(k) + ", at least 1 expected");
    if (threads < 0) throw py::value_error("threads is " + std::to_string(threads) + ", 0 (all) or more expected");
    if (allow && (allow->ndim() != 1 || allow->shape(0) != gallery.shape(0)))
        throw py::value_error("allow has " + std::to_string(allow->size()) + " flags, the gallery has " +
                              std::to_string(gallery.shape(0)) + " rows");

    const std::int64_t n_found = std::min<std::int64_t>(k, gallery.shape(0));
    py::array_t<float> scores({static_cast<py::ssize_t>(queries.shape(0)), static_cast<py::ssize_t>(n_found)});
    py::array_t<std::int64_t> rows({static_cast<py::ssize_t>(queries.shape(0)), static_cast<py::ssize_t>(n_found)});
    const int n_threads = threads ? threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const xmr::TopkArguments arguments{
        queries.data(),
        gallery.data(),
        allow ? reinterpret_cast<const std::uint8_t*>(allow->data()) : nullptr,
        queries.shape(0),
        gallery.shape(0),
        queries.shape(1),
        n_found,
        n_threads,
        scores.mutable_data(),
        rows.mutable_data(),
    };
    if (n_found > 0) {
        py::gil_scoped_release released;
        xmr::topk_plain(arguments);
    }
    return py::make_tuple(scores, rows);
}

}  // namespace

PYBIND11_MODULE(_topk, module) {
    module.doc() = "Exact top-k by inner product on the CPU.";
    module.def("top_k", &top_k, py::arg("queries").noconvert(), py::arg("gallery").noconvert(), py::arg("k"),
               py::arg("allow") = py::none(), py::arg("threads") = 0);
}
