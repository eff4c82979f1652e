// The native operators: their schemas and their CPU kernels.
//
//   lattice_filter(image, values, sigma_xy, sigma_rgb) -> Tensor
//   window_filter(image, values, sigma_xy, sigma_rgb, radius) -> Tensor
//   low_rank_filter(image, values, sigma_xy, sigma_rgb, tolerance, max_rank) -> (Tensor, Tensor)
//
// image [B, 3, H, W] in 0..1 and values [B, C, H, W] are both float32 or both float64, and
// contiguous. The result [B, C, H, W] is W values: each image of the batch has its own kernel W.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <Python.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "checks.h"
#include "low_rank.h"
#include "permutohedral.h"
#include "window.h"

// Importing the module loads the operators. It has nothing else to do.
extern "C" PyObject* PyInit_crf_loss_native(void) {
  static struct PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                      "crf_loss_native",
                                      nullptr,
                                      -1,
                                      nullptr,
                                      nullptr,
                                      nullptr,
                                      nullptr,
                                      nullptr};
  return PyModule_Create(&module);
}

namespace {

using at::Tensor;
using crf::check;

// at::parallel_for without its first step: in each library and thread, the first loop sets this
// thread's number of threads to the one that any thread of the program asked for last.
template <typename F>
void parallel_for(int64_t n, const F& f) {
#ifdef _OPENMP
  if (n > 1 && !at::in_parallel_region() && at::get_num_threads() > 1) {
    at::internal::invoke_parallel(0, n, 1, [&](int64_t begin, int64_t end) {
      c10::ParallelGuard guard(true);
      f(begin, end);
    });
    return;
  }
#endif
  f(int64_t{0}, n);
}

// Loops are cut into the same pieces with and without threads. The elements at the end of a piece
// do not fill a vector, and a compiler may round these differently.
int64_t pieces_of(int64_t n) { return std::min<int64_t>(n, 32); }

void serial(int64_t n, const crf::Loop& loop) {
  const int64_t pieces = pieces_of(n);
  for (int64_t k = 0; k < pieces; ++k) loop(k * n / pieces, (k + 1) * n / pieces);
}

void threaded(int64_t n, const crf::Loop& loop) {
  const int64_t pieces = pieces_of(n);
  parallel_for(pieces, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) loop(k * n / pieces, (k + 1) * n / pieces);
  });
}

// The results of the kernels are undefined for features that are not finite.
void check_finite(const Tensor& image) {
  TORCH_CHECK_VALUE(at::isfinite(image).all().item<bool>(), "the image holds values not finite");
}

// Calls f(index, image planes, value planes, out planes) for each image, with f = worker(how to run
// loops). If the batch has enough images, threads share the batch. Otherwise they share the loops
// of one image. A thread has one f for all its images, so f can reuse memory.
template <typename T, typename Worker>
Tensor for_each_image(const Tensor& image, const Tensor& values, const Worker& worker) {
  Tensor out = at::empty_like(values);
  const int64_t batch = image.size(0), in_step = image.stride(0), step = values.stride(0);
  if (values.numel() == 0) return out;
  const T *rgb = image.const_data_ptr<T>(), *from = values.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  auto run = [&](int64_t begin, int64_t end, const crf::Parallel& parallel) {
    auto f = worker(parallel);
    for (int64_t b = begin; b < end; ++b) f(b, rgb + b * in_step, from + b * step, to + b * step);
  };
  if (batch >= at::get_num_threads()) {
    parallel_for(batch, [&](int64_t begin, int64_t end) { run(begin, end, serial); });
  } else {
    run(0, batch, threaded);
  }
  return out;
}

Tensor lattice_filter(const Tensor& image, const Tensor& values, double sigma_xy,
                      double sigma_rgb) {
  check(image, values, sigma_xy, sigma_rgb);
  const int64_t height = image.size(2), width = image.size(3), channels = values.size(1);
  try {
    return AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "lattice_filter", [&] {
      using T = scalar_t;
      return for_each_image<T>(image, values, [&](const crf::Parallel& parallel) {
        auto lattice =
            std::make_unique<crf::Lattice<T>>(height, width, sigma_xy, sigma_rgb, parallel);
        return [=, lattice = std::move(lattice)](int64_t, const T* rgb, const T* from, T* to) {
          lattice->build(rgb);
          lattice->filter(from, to, channels);
        };
      });
    });
  } catch (const std::range_error& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

Tensor window_filter(const Tensor& image, const Tensor& values, double sigma_xy, double sigma_rgb,
                     int64_t radius) {
  check(image, values, sigma_xy, sigma_rgb);
  TORCH_CHECK(radius >= 0, "radius must not be negative");
  check_finite(image);
  const int64_t height = image.size(2), width = image.size(3), channels = values.size(1);
  return AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "window_filter", [&] {
    using T = scalar_t;
    return for_each_image<T>(image, values, [&](const crf::Parallel& parallel) {
      return [&](int64_t, const T* rgb, const T* from, T* to) {
        crf::window_filter(rgb, from, to, channels, height, width, T(sigma_xy), T(sigma_rgb),
                           radius, parallel);
      };
    });
  });
}

// Also returns the residual [B] of each image's landmarks. The result of an image is 0 if its
// residual is not below the tolerance: it has too many colours for the rank.
std::tuple<Tensor, Tensor> low_rank_filter(const Tensor& image, const Tensor& values,
                                           double sigma_xy, double sigma_rgb, double tolerance,
                                           int64_t max_rank) {
  check(image, values, sigma_xy, sigma_rgb);
  TORCH_CHECK(max_rank > 0, "max_rank must be positive");
  check_finite(image);
  const int64_t height = image.size(2), width = image.size(3), channels = values.size(1);
  Tensor residual = at::zeros({image.size(0)}, image.options().dtype(at::kDouble));
  double* residuals = residual.mutable_data_ptr<double>();
  Tensor out = AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "low_rank_filter", [&] {
    using T = scalar_t;
    return for_each_image<T>(image, values, [&](const crf::Parallel& parallel) {
      return [&](int64_t b, const T* rgb, const T* from, T* to) {
        const crf::Landmarks<T> landmarks(rgb, height * width, T(sigma_rgb), tolerance, max_rank);
        residuals[b] = landmarks.residual;
        if (!(landmarks.residual < tolerance)) {
          std::fill_n(to, channels * height * width, T(0));
          return;
        }
        const crf::LowRankFilter<T> filter(landmarks, rgb, height, width, sigma_xy, T(sigma_rgb),
                                           parallel);
        filter(from, to, channels);
      };
    });
  });
  return {out, residual};
}

}  // namespace

TORCH_LIBRARY(crf_loss, m) {
  m.def("lattice_filter(Tensor image, Tensor values, float sigma_xy, float sigma_rgb) -> Tensor");
  m.def(
      "window_filter(Tensor image, Tensor values, float sigma_xy, float sigma_rgb, int radius) -> "
      "Tensor");
  m.def(
      "low_rank_filter(Tensor image, Tensor values, float sigma_xy, float sigma_rgb, "
      "float tolerance, int max_rank) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(crf_loss, CPU, m) {
  m.impl("lattice_filter", &lattice_filter);
  m.impl("window_filter", &window_filter);
  m.impl("low_rank_filter", &low_rank_filter);
}
