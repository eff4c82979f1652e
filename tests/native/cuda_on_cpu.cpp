// The CUDA kernels on the CPU: threads of a block are threads, blocks come one after the other. For
// the sanitizers, and for machines without a GPU; only fit for tiny images.
//
//   g++ -std=c++20 -shared -fPIC -pthread cuda_on_cpu.cpp -o cuda_on_cpu.so      for ctypes
//   g++ -std=c++20 -fsanitize=thread -DWITH_MAIN -pthread cuda_on_cpu.cpp        a program

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#define __global__
#define __device__

struct Index {
  unsigned x = 0;
};
thread_local Index blockIdx, threadIdx;
Index gridDim;
std::barrier<>* block_barrier;
// As large as the block asked for and not a byte more, so that a sanitizer sees what lies beyond.
std::unique_ptr<double[]> block_memory;

#define CRF_SHARED_MEMORY block_memory.get()

using Word64 = unsigned long long;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }
inline Word64 load_relaxed(const Word64* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
inline void store_relaxed(int* p, int value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }
inline Word64 atomicCAS(Word64* p, Word64 expected, Word64 value) {
  __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline Word64 atomicAdd(Word64* p, Word64 value) {
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
inline int64_t min64(int64_t a, int64_t b) { return std::min(a, b); }
inline int64_t max64(int64_t a, int64_t b) { return std::max(a, b); }

template <typename... P, typename... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, int64_t shared_bytes, int,
            A... arguments) {
  gridDim.x = static_cast<unsigned>(blocks);
  std::barrier<> barrier(threads);
  block_barrier = &barrier;
  block_memory = std::make_unique<double[]>((shared_bytes + 7) / 8);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      threadIdx.x = t;
      for (int64_t b = 0; b < blocks; ++b) {
        blockIdx.x = static_cast<unsigned>(b);
        kernel(P(arguments)...);
        barrier.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
}

#include "../../code_seg/crf_loss/csrc/cuda_kernels.h"

namespace {

template <typename T>
void window(const T* rgb, const T* values, T* out, int64_t batch, int channels, int64_t height,
            int64_t width, double sigma_xy, double sigma_rgb, int64_t radius) {
  crf::window_filter_cuda(rgb, values, out, batch, channels, height, width, sigma_xy, sigma_rgb,
                          radius, 0);
}

template <typename T>
void lattice(const T* rgb, const T* values, T* out, int64_t batch, int channels, int64_t height,
             int64_t width, double sigma_xy, double sigma_rgb) {
  const int64_t pixels = height * width, capacity = crf::lattice_capacity(pixels);
  std::vector<crf::Word> keys(batch * capacity), sums(batch * capacity * channels);
  std::vector<uint32_t> vertex(batch * pixels * crf::kVertices);
  std::vector<T> weight(vertex.size()), signal[4];
  std::vector<int> bad(batch);
  T largest = 0;
  for (int64_t i = 0; i < batch * channels * pixels; ++i) {
    largest = std::isnan(values[i]) ? values[i] : std::max(largest, std::abs(values[i]));
    if (std::isnan(largest)) break;
  }
  crf::LatticeBuffers<T> at;
  at.batch = batch, at.channels = channels, at.height = height, at.width = width;
  at.capacity = capacity, at.keys = keys.data(), at.vertex = vertex.data();
  at.weight = weight.data(), at.bad = bad.data(), at.sums = sums.data(), at.largest = &largest;
  for (int k = 0; k < 4; ++k) {
    signal[k].assign(batch * capacity * channels, T(NAN));  // what is read has to be written
    at.signal[k] = signal[k].data();
  }
  crf::lattice_filter_cuda(at, rgb, values, out, sigma_xy, sigma_rgb, 0);
}

}  // namespace

extern "C" {
void window_float(const float* rgb, const float* values, float* out, int64_t batch, int channels,
                  int64_t height, int64_t width, double sigma_xy, double sigma_rgb,
                  int64_t radius) {
  window(rgb, values, out, batch, channels, height, width, sigma_xy, sigma_rgb, radius);
}
void window_double(const double* rgb, const double* values, double* out, int64_t batch,
                   int channels, int64_t height, int64_t width, double sigma_xy, double sigma_rgb,
                   int64_t radius) {
  window(rgb, values, out, batch, channels, height, width, sigma_xy, sigma_rgb, radius);
}
void lattice_float(const float* rgb, const float* values, float* out, int64_t batch, int channels,
                   int64_t height, int64_t width, double sigma_xy, double sigma_rgb) {
  lattice(rgb, values, out, batch, channels, height, width, sigma_xy, sigma_rgb);
}
void lattice_double(const double* rgb, const double* values, double* out, int64_t batch,
                    int channels, int64_t height, int64_t width, double sigma_xy,
                    double sigma_rgb) {
  lattice(rgb, values, out, batch, channels, height, width, sigma_xy, sigma_rgb);
}
}

#ifdef WITH_MAIN
int main() {
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (const int64_t width : {1, 33}) {
    const int64_t height = 1 + rng() % 35, batch = 2, channels = 1 + rng() % 5;
    std::vector<float> rgb(batch * 3 * height * width), values(batch * channels * height * width);
    std::vector<float> out(values.size()), again(values.size());
    for (float& v : rgb) v = uniform(rng);
    for (float& v : values) v = uniform(rng) - 0.5f;
    window_float(rgb.data(), values.data(), out.data(), batch, channels, height, width, 2, 0.2, 5);
    for (float v : out) {
      if (!std::isfinite(v)) return 1;
    }
    lattice_float(rgb.data(), values.data(), out.data(), batch, channels, height, width, 3, 0.2);
    lattice_float(rgb.data(), values.data(), again.data(), batch, channels, height, width, 3, 0.2);
    for (size_t i = 0; i < out.size(); ++i) {
      if (!std::isfinite(out[i]) || out[i] != again[i]) return 1;
    }
  }
  return 0;
}
#endif
