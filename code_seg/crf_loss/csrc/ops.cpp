// The native operators: their schemas and their CPU kernels.
//
//   lattice_filter(image, values, sigma_xy, sigma_rgb) -> Tensor
//   window_filter(image, values, sigma_xy, sigma_rgb, radius) -> Tensor
//   low_rank_filter(image, values, sigma_xy, sigma_rgb, tolerance, max_rank) -> (Tensor, Tensor)
//
// image [B, 3, H, W] in 0..1 and values [B, C, H, W], both float32 or both float64 and contiguous;
// the result is W values, [B, C, H, W], for each image of the batch with the kernel of that image.

#include <ATen/Parallel.h>
#include <Python.h>
#include <torch/library.h>
#include <torch/types.h>

#include <stdexcept>
#include <tuple>
#include <type_traits>

#include "checks.h"
#include "low_rank.h"
#include "permutohedral.h"
#include "window.h"

// Loading the operators is all that importing the module has to do.
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

struct Threads {
  template <typename F>
  void operator()(int64_t n, const F& f) const {
    at::parallel_for(0, n, std::max<int64_t>(1, n / (4 * at::get_num_threads())), f);
  }
};

struct Serial {
  template <typename F>
  void operator()(int64_t n, const F& f) const {
    f(int64_t{0}, n);
  }
};

// The features of every pixel have to be numbers: what a kernel makes of others is undefined.
void check_finite(const Tensor& image) {
  TORCH_CHECK_VALUE(at::isfinite(image).all().item<bool>(), "the image holds values not finite");
}

// body(index, image planes, value planes, out planes, how to run its loops), for each image:
// threads share the batch where it is large enough, the loops of one image otherwise.
template <typename T, typename Body>
Tensor for_each_image(const Tensor& image, const Tensor& values, const Body& body) {
  Tensor out = at::empty_like(values);
  const int64_t batch = image.size(0), in_step = image.stride(0), step = values.stride(0);
  if (values.numel() == 0) return out;
  const T *rgb = image.const_data_ptr<T>(), *from = values.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  auto one = [&](int64_t b, const auto& parallel) {
    body(b, rgb + b * in_step, from + b * step, to + b * step, parallel);
  };
  if (batch >= at::get_num_threads()) {
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) one(b, Serial());
    });
  } else {
    for (int64_t b = 0; b < batch; ++b) one(b, Threads());
  }
  return out;
}

Tensor lattice_filter(const Tensor& image, const Tensor& values, double sigma_xy,
                      double sigma_rgb) {
  check(image, values, sigma_xy, sigma_rgb);
  try {
    return AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "lattice_filter", [&] {
      return for_each_image<scalar_t>(
          image, values,
          [&](int64_t, const scalar_t* rgb, const scalar_t* from, scalar_t* to,
              const auto& parallel) {
            crf::Lattice<scalar_t, std::decay_t<decltype(parallel)>> lattice(
                rgb, image.size(2), image.size(3), scalar_t(sigma_xy), scalar_t(sigma_rgb),
                parallel);
            lattice.filter(from, to, values.size(1));
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
  return AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "window_filter", [&] {
    return for_each_image<scalar_t>(
        image, values,
        [&](int64_t, const scalar_t* rgb, const scalar_t* from, scalar_t* to,
            const auto& parallel) {
          crf::window_filter(rgb, from, to, values.size(1), values.size(2), values.size(3),
                             scalar_t(sigma_xy), scalar_t(sigma_rgb), radius, parallel);
        });
  });
}

// Beside the result the residual [B] of each image's landmarks. An image whose residual is not
// under the tolerance is left 0: its colours are too many for the rank.
std::tuple<Tensor, Tensor> low_rank_filter(const Tensor& image, const Tensor& values,
                                           double sigma_xy, double sigma_rgb, double tolerance,
                                           int64_t max_rank) {
  check(image, values, sigma_xy, sigma_rgb);
  TORCH_CHECK(max_rank > 0, "max_rank must be positive");
  check_finite(image);
  Tensor residual = at::zeros({image.size(0)}, image.options().dtype(at::kDouble));
  double* residuals = residual.mutable_data_ptr<double>();
  const int64_t height = image.size(2), width = image.size(3), channels = values.size(1);
  Tensor out = AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "low_rank_filter", [&] {
    return for_each_image<scalar_t>(
        image, values,
        [&](int64_t b, const scalar_t* rgb, const scalar_t* from, scalar_t* to,
            const auto& parallel) {
          const crf::Landmarks<scalar_t> landmarks(rgb, height * width, scalar_t(sigma_rgb),
                                                   tolerance, max_rank);
          residuals[b] = landmarks.residual;
          if (!(landmarks.residual < tolerance)) {
            std::fill_n(to, channels * height * width, scalar_t(0));
            return;
          }
          const crf::LowRankFilter<scalar_t, std::decay_t<decltype(parallel)>> filter(
              landmarks, rgb, height, width, sigma_xy, scalar_t(sigma_rgb), parallel);
          filter(from, to, channels);
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
