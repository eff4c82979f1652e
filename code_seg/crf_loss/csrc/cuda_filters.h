// The filters on CUDA as the host sees them. All pointers are to device memory.

#pragma once

#include <cstdint>

#include "simplex.h"

namespace crf {

using Word = unsigned long long;  // what CUDA's 64-bit atomics take

constexpr int kTileX = 32;              // pixels of a row that a block of the window sums for
constexpr int kSharedBytes = 48 << 10;  // shared memory that any device grants

// Of the sources of one row of a block: three colours and some values each.
template <typename T>
int64_t window_row_bytes(int channels, int64_t radius) {
  return (kTileX + 2 * radius) * (3 + channels) * sizeof(T);
}

// As window_filter of window.h for a batch; one row of sources has to fit into kSharedBytes with
// 4 channels.
template <typename T, typename Stream>
void window_filter_cuda(const T* rgb, const T* values, T* out, int64_t batch, int channels,
                        int64_t height, int64_t width, double sigma_xy, double sigma_rgb,
                        int64_t radius, Stream stream);

// Memory of the lattice.
// Each image has a hash table of `capacity` slots, a power of two above 6 H W; a slot holds a key,
// or 0, which is no key. Signals at lattice points are stored at their slots. Sums of the splat are
// integers, in steps of a fixed fraction of the largest value: their order does not matter.
template <typename T>
struct LatticeBuffers {
  int64_t batch, channels, height, width, capacity;
  Word* keys;        // [B, capacity], zeros at first
  uint32_t* vertex;  // [B, H W, 6] slots
  T* weight;         // [B, H W, 6]
  int* bad;          // [B], zeros at first; 1: a feature is out of range or no number
  Word* sums;        // [B, capacity, C], zeros at first
  const T* largest;  // the largest |value|
  T* signal[4];      // [B, capacity, C]: both blur orders, each twice
};

inline int64_t lattice_capacity(int64_t pixels) {
  int64_t capacity = 1024;
  while (capacity <= kVertices * pixels) capacity *= 2;
  return capacity;
}

// As Lattice of permutohedral.h for a batch, but a bad feature makes its image NaN.
template <typename T, typename Stream>
void lattice_filter_cuda(LatticeBuffers<T> at, const T* rgb, const T* values, T* out,
                         double sigma_xy, double sigma_rgb, Stream stream);

}  // namespace crf
