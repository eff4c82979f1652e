// Permutohedral lattice for the five features (x, y) / sigma_xy, (r, g, b) / sigma_rgb of an image
// (Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010).
//
// One build serves any number of signals. The filter is
//
//   W = alpha S^T (B + B^T) / 2 S
//
// S is the barycentric splat. B blurs along the six axes in order, and B^T in the reverse order.
// Their mean makes W symmetric, so W is its own adjoint. This file does not need torch.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "parallel.h"
#include "simplex.h"

namespace crf {

constexpr int kLanes = 32;  // pixels whose simplices are computed together (GCC unrolls 16)

// A hash table with open addressing from keys to 1, 2, 3, ... Index 0: "no such lattice point".
class HashTable {
 public:
  explicit HashTable(size_t expected) {
    keys_.reserve(expected);
    grow_to(2 * expected);
  }

  void clear() {
    keys_.clear();
    std::fill(slots_.begin(), slots_.end(), Slot{0, 0});
  }

  // Index of a key, which is added if it is new. `hash` is mix(key).
  uint32_t insert(Key key, uint64_t hash) {
    if (2 * (keys_.size() + 1) > slots_.size()) grow_to(2 * slots_.size());
    size_t slot = hash & mask_;
    while (slots_[slot].index) {
      if (holds(slots_[slot], hash, key)) return slots_[slot].index;
      slot = (slot + 1) & mask_;
    }
    if (keys_.size() >= std::numeric_limits<uint32_t>::max()) {
      throw std::length_error("the image has too many lattice points");
    }
    keys_.push_back(key);
    slots_[slot] = {static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(keys_.size())};
    return slots_[slot].index;
  }

  // Index of a key, or 0 if the table does not hold it.
  uint32_t find(Key key, uint64_t hash) const {
    size_t slot = hash & mask_;
    while (slots_[slot].index && !holds(slots_[slot], hash, key)) slot = (slot + 1) & mask_;
    return slots_[slot].index;
  }

  // Prefetches the slot of this hash.
  void prefetch(uint64_t hash) const { __builtin_prefetch(&slots_[hash & mask_]); }

  const std::vector<Key>& keys() const { return keys_; }

 private:
  struct Slot {
    uint32_t tag;  // upper half of the hash; if it differs, the key differs
    uint32_t index;
  };

  bool holds(const Slot& slot, uint64_t hash, Key key) const {
    return slot.tag == static_cast<uint32_t>(hash >> 32) && keys_[slot.index - 1] == key;
  }

  void grow_to(size_t wanted) {
    size_t size = 1024;
    while (size < wanted) size *= 2;
    slots_.assign(size, Slot{0, 0});
    mask_ = size - 1;
    for (size_t i = 0; i < keys_.size(); ++i) {
      const uint64_t hash = mix(keys_[i]);
      size_t slot = hash & mask_;
      while (slots_[slot].index) slot = (slot + 1) & mask_;
      slots_[slot] = {static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(i + 1)};
    }
  }

  std::vector<Slot> slots_;
  std::vector<Key> keys_;
  size_t mask_ = 0;
};

// One lattice serves any number of images of one size, and any number of signals.
template <typename T>
class Lattice {
 public:
  // For images of height x width pixels. They use the same memory one after the other.
  Lattice(int64_t height, int64_t width, double sigma_xy, double sigma_rgb,
          const Parallel& parallel)
      : height_(height),
        width_(width),
        pixels_(height * width),
        scale_(sigma_xy, sigma_rgb),
        parallel_(parallel),
        weight_(new T[pixels_ * kVertices]),  // a vector would first be set to 0
        vertex_(new uint32_t[pixels_ * kVertices]) {
    // Each strip of rows has a table. The tables are then joined.
    const int64_t strips = strips_of(height, width);
    tables_.assign(strips, HashTable(pixels_ / strips / 2));
  }

  // Builds the lattice of an image. rgb: three planes in 0..1. Throws std::range_error if a feature
  // is not finite or out of range, and std::length_error if 32 bits cannot number the lattice
  // points.
  void build(const T* rgb) {
    const int64_t strips = static_cast<int64_t>(tables_.size());
    std::vector<char> good(strips, 1);
    parallel_(strips, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        tables_[s].clear();
        good[s] = fill_rows(rgb, s * height_ / strips, (s + 1) * height_ / strips, tables_[s]);
      }
    });
    if (std::find(good.begin(), good.end(), 0) != good.end()) {
      throw std::range_error("a feature is out of the lattice's range or not finite");
    }
    for (int64_t s = 1; s < strips; ++s) {
      const std::vector<Key>& keys = tables_[s].keys();
      std::vector<uint32_t> joined(keys.size() + 1);
      for (size_t k = 0; k < keys.size(); ++k) {
        joined[k + 1] = tables_[0].insert(keys[k], mix(keys[k]));
      }
      const int64_t first = s * height_ / strips * width_ * kVertices;
      const int64_t last = (s + 1) * height_ / strips * width_ * kVertices;
      parallel_(last - first, [&](int64_t begin, int64_t end) {
        for (int64_t v = first + begin; v < first + end; ++v) vertex_[v] = joined[vertex_[v]];
      });
    }
    find_neighbours(tables_[0]);
  }

  // out = W values. Both are `channels` planes of height x width pixels.
  void filter(const T* values, T* out, int64_t channels) const {
    for (; channels >= 4; channels -= 4, values += 4 * pixels_, out += 4 * pixels_) {
      filter_some<4>(values, out);
    }
    if (channels == 3) filter_some<3>(values, out);
    if (channels == 2) filter_some<2>(values, out);
    if (channels == 1) filter_some<1>(values, out);
  }

 private:
  template <int C>
  using Signal = std::array<T, C>;  // the values of all channels at a lattice point

  // Computes vertices and weights of the pixels of some rows. Returns false if a feature is out of
  // range.
  bool fill_rows(const T* rgb, int64_t first_row, int64_t last_row, HashTable& table) {
    // Three of four vertices are those of the pixel to the left or above, and need no look-up. The
    // vectors hold a line of pixels for each remainder. It begins with a place left of the image.
    const int64_t line = width_ + 1;
    std::vector<Key> key_above(kVertices * line, ~Key{0});
    std::vector<uint32_t> vertex_above(kVertices * line);
    // All bits are set if the vertex is that of the pixel above, or else that to the left.
    uint32_t from_above[kVertices][kLanes], from_left[kVertices][kLanes];
    uint32_t looked_up[kVertices][kLanes] = {};
    uint64_t hash[kVertices * kLanes];
    int pending[kVertices * kLanes + 1];
    T feature[kFeatures][kLanes] = {};
    Simplices<T, kLanes> simplices;
    for (int64_t y = first_row; y < last_row; ++y) {
      for (int64_t x0 = 0; x0 < width_; x0 += kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, width_ - x0));
        const T* p = rgb + y * width_ + x0;
        for (int l = 0; l < lanes; ++l) {
          feature[0][l] = T(x0 + l) - T(width_) / 2;
          feature[1][l] = T(y) - T(height_) / 2;
          for (int c = 0; c < 3; ++c) feature[2 + c][l] = p[c * pixels_ + l];
        }
        if (!simplices.enclose(feature, scale_)) return false;
        // No branch depends on the image, because half of such branches would be mispredicted.
        int count = 0;
        for (int r = 0; r < kVertices; ++r) {
          const Key* key = simplices.key[r];
          const Key* above = &key_above[r * line + x0];
          from_left[r][0] = -uint32_t(key[0] == above[0]);
          for (int l = 1; l < lanes; ++l) from_left[r][l] = -uint32_t(key[l] == key[l - 1]);
          for (int l = 0; l < lanes; ++l) from_above[r][l] = -uint32_t(key[l] == above[l + 1]);
          for (int l = 0; l < lanes; ++l) {
            from_left[r][l] &= ~from_above[r][l];
            pending[count] = r * kLanes + l;
            count += 1 & ~(from_above[r][l] | from_left[r][l]);
          }
        }
        for (int i = 0; i < count; ++i) {
          hash[i] = mix(simplices.key[pending[i] / kLanes][pending[i] % kLanes]);
          table.prefetch(hash[i]);
        }
        for (int i = 0; i < count; ++i) {
          const int r = pending[i] / kLanes, l = pending[i] % kLanes;
          looked_up[r][l] = table.insert(simplices.key[r][l], hash[i]);
        }
        for (int r = 0; r < kVertices; ++r) {
          uint32_t* above = &vertex_above[r * line + x0];
          uint32_t left = above[0];
          for (int l = 0; l < lanes; ++l) {
            const uint32_t new_mask = ~(from_above[r][l] | from_left[r][l]);
            left = (above[l + 1] & from_above[r][l]) | (left & from_left[r][l]) |
                   (looked_up[r][l] & new_mask);
            above[l + 1] = left;
            const int64_t at = (y * width_ + x0 + l) * kVertices + r;
            vertex_[at] = left;
            weight_[at] = simplices.weight[r][l];
          }
          std::copy_n(simplices.key[r], lanes, &key_above[r * line + x0 + 1]);
        }
      }
    }
    return true;
  }

  void find_neighbours(const HashTable& table) {
    const std::vector<Key>& keys = table.keys();
    points_ = static_cast<int64_t>(keys.size());
    for (int axis = 0; axis < kVertices; ++axis) {
      next_[axis].assign(points_ + 1, 0);
      previous_[axis].assign(points_ + 1, 0);
    }
    parallel_(points_, [&](int64_t begin, int64_t end) {
      uint64_t hash[8][kVertices];
      for (int64_t first = begin; first < end; first += 8) {
        const int64_t last = std::min(first + 8, end);
        for (int64_t v = first; v < last; ++v) {
          for (int axis = 0; axis < kVertices; ++axis) {
            hash[v - first][axis] = mix(neighbour(keys[v], axis));
            table.prefetch(hash[v - first][axis]);
          }
        }
        for (int64_t v = first; v < last; ++v) {
          for (int axis = 0; axis < kVertices; ++axis) {
            const uint32_t found = table.find(neighbour(keys[v], axis), hash[v - first][axis]);
            if (!found) continue;
            next_[axis][v + 1] = found;
            previous_[axis][found] = static_cast<uint32_t>(v + 1);  // one writer: a bijection
          }
        }
      }
    });
  }

  template <int C>
  void filter_some(const T* values, T* out) const {
    std::vector<Signal<C>> forward = splat<C>(values), reverse = forward, scratch(points_ + 1);
    for (int axis = 0; axis < kVertices; ++axis) blur<C>(forward, scratch, axis);
    for (int axis = kVertices - 1; axis >= 0; --axis) blur<C>(reverse, scratch, axis);
    const T alpha = T(1) / (1 + std::pow(T(2), -kFeatures)) / 2;  // / 2: the mean of both orders
    for (int64_t v = 0; v <= points_; ++v) {
      for (int c = 0; c < C; ++c) forward[v][c] = alpha * (forward[v][c] + reverse[v][c]);
    }
    parallel_(pixels_, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        Signal<C> sum = {};
        for (int r = 0; r < kVertices; ++r) {
          const Signal<C>& from = forward[vertex_[p * kVertices + r]];
          for (int c = 0; c < C; ++c) sum[c] += weight_[p * kVertices + r] * from[c];
        }
        for (int c = 0; c < C; ++c) out[c * pixels_ + p] = sum[c];
      }
    });
  }

  // Splats pieces of a fixed number of pixels, and adds up their sums in order.
  template <int C>
  std::vector<Signal<C>> splat(const T* values) const {
    const int64_t pieces = std::clamp<int64_t>(pixels_ / (1 << 18), 1, 8);
    std::vector<std::vector<Signal<C>>> parts(pieces);
    parallel_(pieces, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        std::vector<Signal<C>>& part = parts[piece];
        part.assign(points_ + 1, Signal<C>{});
        for (int64_t p = piece * pixels_ / pieces; p < (piece + 1) * pixels_ / pieces; ++p) {
          for (int r = 0; r < kVertices; ++r) {
            Signal<C>& to = part[vertex_[p * kVertices + r]];
            const T w = weight_[p * kVertices + r];
            for (int c = 0; c < C; ++c) to[c] += w * values[c * pixels_ + p];
          }
        }
      }
    });
    for (int64_t piece = 1; piece < pieces; ++piece) {
      for (int64_t v = 0; v <= points_; ++v) {
        for (int c = 0; c < C; ++c) parts[0][v][c] += parts[piece][v][c];
      }
    }
    return std::move(parts[0]);
  }

  // Blurs with (1/2, 1, 1/2) along an axis. Point 0 replaces missing neighbours and stays 0.
  template <int C>
  void blur(std::vector<Signal<C>>& values, std::vector<Signal<C>>& scratch, int axis) const {
    const std::vector<uint32_t>&next = next_[axis], &previous = previous_[axis];
    scratch[0] = Signal<C>{};
    parallel_(points_, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin + 1; v <= end; ++v) {
        const Signal<C>&a = values[next[v]], &b = values[previous[v]], &own = values[v];
        for (int c = 0; c < C; ++c) scratch[v][c] = own[c] + T(0.5) * (a[c] + b[c]);
      }
    });
    values.swap(scratch);
  }

  int64_t height_, width_, pixels_, points_ = 0;
  Scale<T> scale_;
  const Parallel& parallel_;
  std::vector<HashTable> tables_;
  std::unique_ptr<T[]> weight_;         // [pixels, 6] barycentric weights
  std::unique_ptr<uint32_t[]> vertex_;  // [pixels, 6] lattice points from 1
  std::array<std::vector<uint32_t>, kVertices> next_, previous_;  // [points + 1] per axis
};

}  // namespace crf
