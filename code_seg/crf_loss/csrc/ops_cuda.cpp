// The native operators on CUDA: memory and streams. The kernels are in cuda_kernels.h.

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "checks.h"
#include "cuda_filters.h"

namespace {

using at::Tensor;

void check_cuda(const Tensor& image, const Tensor& values, double sigma_xy, double sigma_rgb) {
  crf::check(image, values, sigma_xy, sigma_rgb);
  TORCH_CHECK(image.device() == values.device(), "image and values must be on one device");
}

Tensor window_filter(const Tensor& image, const Tensor& values, double sigma_xy, double sigma_rgb,
                     int64_t radius) {
  check_cuda(image, values, sigma_xy, sigma_rgb);
  const c10::cuda::CUDAGuard guard(image.device());
  Tensor out = at::empty_like(values);
  if (values.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "window_filter", [&] {
    TORCH_CHECK(radius >= 0 && crf::window_row_bytes<scalar_t>(4, radius) <= crf::kSharedBytes,
                "radius is out of range");
    crf::window_filter_cuda(image.const_data_ptr<scalar_t>(), values.const_data_ptr<scalar_t>(),
                            out.mutable_data_ptr<scalar_t>(), values.size(0),
                            static_cast<int>(values.size(1)), values.size(2), values.size(3),
                            sigma_xy, sigma_rgb, radius,
                            c10::cuda::getCurrentCUDAStream().stream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

Tensor lattice_filter(const Tensor& image, const Tensor& values, double sigma_xy,
                      double sigma_rgb) {
  check_cuda(image, values, sigma_xy, sigma_rgb);
  const c10::cuda::CUDAGuard guard(image.device());
  Tensor out = at::empty_like(values);
  if (values.numel() == 0) return out;
  const int64_t batch = values.size(0), channels = values.size(1);
  const int64_t pixels = values.size(2) * values.size(3);
  const int64_t capacity = crf::lattice_capacity(pixels);
  TORCH_CHECK(capacity <= int64_t{1} << 32, "the image has too many pixels for one lattice");
  const auto options = values.options();
  // Older versions of torch have no unsigned types, so signed tensors hold the bits.
  const Tensor keys = at::zeros({batch, capacity}, options.dtype(at::kLong));
  const Tensor vertex = at::empty({batch, pixels, crf::kVertices}, options.dtype(at::kInt));
  const Tensor weight = at::empty({batch, pixels, crf::kVertices}, options);
  const Tensor bad = at::zeros({batch}, options.dtype(at::kInt));
  const Tensor sums = at::zeros({batch, capacity, channels}, options.dtype(at::kLong));
  const Tensor signals = at::empty({4, batch, capacity, channels}, options);
  const Tensor largest = values.abs().max();
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "lattice_filter", [&] {
    crf::LatticeBuffers<scalar_t> buffers;
    buffers.batch = batch;
    buffers.channels = channels;
    buffers.height = values.size(2);
    buffers.width = values.size(3);
    buffers.capacity = capacity;
    buffers.keys = reinterpret_cast<crf::Word*>(keys.mutable_data_ptr<int64_t>());
    buffers.vertex = reinterpret_cast<uint32_t*>(vertex.mutable_data_ptr<int>());
    buffers.weight = weight.mutable_data_ptr<scalar_t>();
    buffers.bad = bad.mutable_data_ptr<int>();
    buffers.sums = reinterpret_cast<crf::Word*>(sums.mutable_data_ptr<int64_t>());
    buffers.largest = largest.const_data_ptr<scalar_t>();
    for (int k = 0; k < 4; ++k) {
      buffers.signal[k] = signals.mutable_data_ptr<scalar_t>() + k * batch * capacity * channels;
    }
    crf::lattice_filter_cuda(buffers, image.const_data_ptr<scalar_t>(),
                             values.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(),
                             sigma_xy, sigma_rgb, c10::cuda::getCurrentCUDAStream().stream());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(crf_loss, CUDA, m) {
  m.impl("lattice_filter", &lattice_filter);
  m.impl("window_filter", &window_filter);
}
