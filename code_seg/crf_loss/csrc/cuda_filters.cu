// Compiles the kernels of cuda_kernels.h for CUDA. This takes seconds, because torch's headers are
// not included.

#include <cuda_runtime.h>

#include <cstdint>

namespace crf {

extern __shared__ __align__(16) unsigned char shared_memory[];
#define CRF_SHARED_MEMORY ::crf::shared_memory

__device__ inline unsigned long long load_relaxed(const unsigned long long* p) {
  return *static_cast<const volatile unsigned long long*>(p);
}
__device__ inline void store_relaxed(int* p, int value) { *static_cast<volatile int*>(p) = value; }
__device__ inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
__device__ inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

template <typename... P, typename... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, int64_t shared_bytes,
            cudaStream_t stream, A... arguments) {
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(P(arguments)...);
}

}  // namespace crf

#include "cuda_kernels.h"

namespace crf {

#define CRF_INSTANTIATE(T)                                                                        \
  template void window_filter_cuda<T>(const T*, const T*, T*, int64_t, int, int64_t, int64_t,     \
                                      double, double, int64_t, cudaStream_t);                     \
  template void lattice_filter_cuda<T>(LatticeBuffers<T>, const T*, const T*, T*, double, double, \
                                       cudaStream_t);
CRF_INSTANTIATE(float)
CRF_INSTANTIATE(double)

}  // namespace crf
