// Checks of the operators' arguments, for all devices.

#pragma once

#include <ATen/core/Tensor.h>

namespace crf {

// The messages are plain words: where the C++ libraries of torch and of the compiler differ,
// printing a shape has crashed Python.
inline void check(const at::Tensor& image, const at::Tensor& values, double sigma_xy,
                  double sigma_rgb) {
  TORCH_CHECK(image.dim() == 4 && image.size(1) == 3, "image must be [B, 3, H, W]");
  TORCH_CHECK(values.dim() == 4, "values must be [B, C, H, W]");
  TORCH_CHECK(image.size(0) == values.size(0) && image.size(2) == values.size(2) &&
                  image.size(3) == values.size(3),
              "image and values differ in batch, height or width");
  TORCH_CHECK(image.scalar_type() == values.scalar_type(), "image and values differ in type");
  TORCH_CHECK(image.is_contiguous() && values.is_contiguous(), "tensors must be contiguous");
  TORCH_CHECK(sigma_xy > 0 && sigma_rgb > 0, "sigmas must be positive");
}

}  // namespace crf
