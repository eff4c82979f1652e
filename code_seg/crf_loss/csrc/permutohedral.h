// Permutohedral lattice for the five features (x, y) / sigma_xy, (r, g, b) / sigma_rgb of an image
// (Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010).
//
// One build serves any number of signals. The filter is W = alpha S^T (B + B^T) / 2 S, with S the
// barycentric splat and B the blurs along the six axes in order: the mean with the reverse order
// makes W symmetric, so that it is its own adjoint. No torch in here.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

namespace crf {

constexpr int kFeatures = 5;
constexpr int kVertices = kFeatures + 1;  // of a simplex; also the number of blur axes
constexpr int kBits = 12;                 // of one packed coordinate
constexpr int kRemainderBits = 3;

// A lattice point has coordinates 6 q_i + r, i < 5, with one remainder r for all of them (the sixth
// follows, as all sum to 0). Its key is r in the lowest bits, then q_i + kOffset, 12 bits each.
using Key = uint64_t;
constexpr Key kEmpty = std::numeric_limits<Key>::max();
constexpr int kOffset = 1 << (kBits - 1);

constexpr Key axis_unit(int i) { return Key{1} << (kBits * i + kRemainderBits); }
constexpr Key kAllAxes =
    axis_unit(0) + axis_unit(1) + axis_unit(2) + axis_unit(3) + axis_unit(4);

// The neighbour in positive direction of an axis: every coordinate + 1, but the axis' own - 5.
inline Key neighbour(Key key, int axis) {
  const bool carry = (key & 7) == kFeatures;
  const Key next = carry ? key - kFeatures + kAllAxes : key + 1;
  return axis < kFeatures ? next - axis_unit(axis) : next;
}

// Open addressing from keys to 1, 2, 3, ...; index 0 stands for "no such lattice point".
class HashTable {
 public:
  explicit HashTable(size_t expected) { grow_to(std::max<size_t>(1024, 2 * expected)); }

  int32_t insert(Key key) {
    if (2 * (keys_.size() + 1) > slots_.size()) grow_to(2 * slots_.size());
    size_t slot = home(key);
    while (slots_[slot].key != kEmpty) {
      if (slots_[slot].key == key) return slots_[slot].index;
      slot = (slot + 1) & mask_;
    }
    keys_.push_back(key);
    slots_[slot] = {key, static_cast<int32_t>(keys_.size())};
    return slots_[slot].index;
  }

  int32_t find(Key key) const {
    size_t slot = home(key);
    while (slots_[slot].key != kEmpty) {
      if (slots_[slot].key == key) return slots_[slot].index;
      slot = (slot + 1) & mask_;
    }
    return 0;
  }

  const std::vector<Key>& keys() const { return keys_; }

 private:
  struct Slot {
    Key key;
    int32_t index;
  };

  // Neighbouring keys differ in few bits: only a full mixer spreads them (splitmix64's).
  size_t home(Key key) const {
    key ^= key >> 30;
    key *= 0xbf58476d1ce4e5b9ull;
    key ^= key >> 27;
    key *= 0x94d049bb133111ebull;
    return static_cast<size_t>(key ^ (key >> 31)) & mask_;
  }

  void grow_to(size_t wanted) {
    size_t size = 1024;
    while (size < wanted) size *= 2;
    slots_.assign(size, Slot{kEmpty, 0});
    mask_ = size - 1;
    for (size_t i = 0; i < keys_.size(); ++i) {
      size_t slot = home(keys_[i]);
      while (slots_[slot].key != kEmpty) slot = (slot + 1) & mask_;
      slots_[slot] = {keys_[i], static_cast<int32_t>(i + 1)};
    }
  }

  std::vector<Slot> slots_;
  std::vector<Key> keys_;
  size_t mask_ = 0;
};

// Parallel(n, f) runs f(begin, end) on pieces of 0..n-1; the caller brings the threads.
template <typename T, typename Parallel>
class Lattice {
 public:
  // rgb: three planes of height x width pixels in 0..1.
  Lattice(const T* rgb, int64_t height, int64_t width, T sigma_xy, T sigma_rgb,
          const Parallel& parallel)
      : pixels_(height * width), parallel_(parallel) {
    if (pixels_ > std::numeric_limits<int32_t>::max() / kVertices) {
      throw std::length_error("the image has too many pixels for one lattice");
    }
    weight_.resize(pixels_ * kVertices);
    vertex_.resize(pixels_ * kVertices);
    std::vector<Simplex> simplices(pixels_);
    parallel_(pixels_, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        // The spatial origin is the middle, which halves the range of the coordinates.
        const std::array<T, kFeatures> feature = {
            (T(p % width) - T(width) / 2) / sigma_xy, (T(p / width) - T(height) / 2) / sigma_xy,
            rgb[p] / sigma_rgb, rgb[pixels_ + p] / sigma_rgb, rgb[2 * pixels_ + p] / sigma_rgb};
        simplices[p] = enclosing_simplex(feature, &weight_[p * kVertices]);
      }
    });
    HashTable table(static_cast<size_t>(pixels_) / 4);
    for (int64_t p = 0; p < pixels_; ++p) {
      const Simplex& s = simplices[p];
      if (!s.inside) throw std::range_error("a feature is out of the lattice's range or not finite");
      int32_t* vertices = &vertex_[p * kVertices];
      if (p > 0 && s == simplices[p - 1]) {  // the next pixel often lies in the same simplex
        std::copy(vertices - kVertices, vertices, vertices);
        continue;
      }
      for (int r = 0; r < kVertices; ++r) vertices[r] = table.insert(s.key(r));
    }
    find_neighbours(table);
  }

  int64_t size() const { return points_; }  // number of lattice points

  // values, out: `channels` planes of as many pixels each.
  void filter(const T* values, T* out, int64_t channels) const {
    const int64_t n = (points_ + 1) * channels;
    std::vector<T> splatted = splat(values, channels);
    std::vector<T> forward = splatted, scratch(n);
    for (int axis = 0; axis < kVertices; ++axis) blur(forward, scratch, channels, axis);
    std::vector<T>& reverse = splatted;
    for (int axis = kVertices - 1; axis >= 0; --axis) blur(reverse, scratch, channels, axis);
    const T alpha = T(1) / (1 + std::pow(T(2), -kFeatures)) / 2;  // / 2: the mean of both orders
    parallel_(pixels_, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        for (int64_t c = 0; c < channels; ++c) {
          T sum = 0;
          for (int r = 0; r < kVertices; ++r) {
            const int64_t at = int64_t(vertex_[p * kVertices + r]) * channels + c;
            sum += weight_[p * kVertices + r] * (forward[at] + reverse[at]);
          }
          out[c * pixels_ + p] = alpha * sum;
        }
      }
    });
  }

 private:
  struct Simplex {
    Key origin;              // key of the vertex with remainder 0
    std::array<int8_t, kVertices> rank;
    bool inside;
    bool operator==(const Simplex& o) const { return origin == o.origin && rank == o.rank; }
    // The vertex of remainder r is one step of 6 lower where the rank is high.
    Key key(int r) const {
      Key k = origin + r;
      for (int i = 0; i < kFeatures; ++i) {
        if (rank[i] > kFeatures - r) k -= axis_unit(i);
      }
      return k;
    }
  };

  static Simplex enclosing_simplex(const std::array<T, kFeatures>& feature, T* weight) {
    // Onto the hyperplane of coordinates with sum 0, scaled so that the blur has deviation 1.
    const T scale = std::sqrt(T(2) / 3) * kVertices;
    std::array<T, kVertices> elevated;
    T sum = 0;
    for (int j = kFeatures; j > 0; --j) {
      const T c = feature[j - 1] * scale / std::sqrt(T(j) * (j + 1));
      elevated[j] = sum - j * c;
      sum += c;
    }
    elevated[0] = sum;

    // Nearest lattice point of remainder 0, then into the hyperplane by the ranks.
    Simplex s;
    std::array<T, kVertices> base, rest;
    T base_sum = 0;
    for (int i = 0; i < kVertices; ++i) {
      base[i] = std::floor(elevated[i] / kVertices + T(0.5));
      rest[i] = elevated[i] - base[i] * kVertices;
      base_sum += base[i];
    }
    s.inside = std::abs(base_sum) <= kVertices;  // false for NaN and infinity too
    if (!s.inside) return s;
    s.rank.fill(static_cast<int8_t>(base_sum));
    for (int i = 0; i < kFeatures; ++i) {
      for (int j = i + 1; j < kVertices; ++j) {
        const bool lower = rest[i] < rest[j];
        s.rank[i] += lower;
        s.rank[j] += !lower;
      }
    }
    for (int i = 0; i < kVertices; ++i) {
      if (s.rank[i] < 0) {
        s.rank[i] += kVertices;
        base[i] += 1;
        rest[i] -= kVertices;
      } else if (s.rank[i] > kFeatures) {
        s.rank[i] -= kVertices;
        base[i] -= 1;
        rest[i] += kVertices;
      }
    }
    s.origin = 0;
    for (int i = 0; i < kFeatures; ++i) {
      // Room for the neighbours, which are up to two steps away.
      s.inside = s.inside && std::abs(base[i]) < kOffset - 4;
      s.origin += s.inside ? Key(int64_t(base[i]) + kOffset) * axis_unit(i) : 0;
    }

    // The sorted rests are the barycentric coordinates.
    std::array<T, kVertices> sorted;
    for (int i = 0; i < kVertices; ++i) sorted[kFeatures - s.rank[i]] = rest[i] / kVertices;
    // sorted is ascending: sorted[k] belongs to rank 5 - k
    weight[0] = 1 + sorted[0] - sorted[kFeatures];
    for (int k = 1; k < kVertices; ++k) weight[k] = sorted[k] - sorted[k - 1];
    return s;
  }

  void find_neighbours(const HashTable& table) {
    const std::vector<Key>& keys = table.keys();
    points_ = static_cast<int64_t>(keys.size());
    for (int axis = 0; axis < kVertices; ++axis) {
      next_[axis].assign(points_ + 1, 0);
      previous_[axis].assign(points_ + 1, 0);
    }
    parallel_(points_, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        for (int axis = 0; axis < kVertices; ++axis) {
          const int32_t found = table.find(neighbour(keys[v], axis));
          if (!found) continue;
          next_[axis][v + 1] = found;
          previous_[axis][found] = static_cast<int32_t>(v + 1);  // one writer: a bijection
        }
      }
    });
  }

  // Pieces of fixed size, so that the order of the sums does not depend on the threads.
  std::vector<T> splat(const T* values, int64_t channels) const {
    const int64_t n = (points_ + 1) * channels;
    const int64_t pieces = std::clamp<int64_t>(pixels_ / (1 << 18), 1, 8);
    std::vector<std::vector<T>> parts(pieces);
    parallel_(pieces, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        std::vector<T>& part = parts[piece];
        part.assign(n, 0);
        for (int64_t p = piece * pixels_ / pieces; p < (piece + 1) * pixels_ / pieces; ++p) {
          for (int r = 0; r < kVertices; ++r) {
            const int64_t at = int64_t(vertex_[p * kVertices + r]) * channels;
            const T w = weight_[p * kVertices + r];
            for (int64_t c = 0; c < channels; ++c) part[at + c] += w * values[c * pixels_ + p];
          }
        }
      }
    });
    for (int64_t piece = 1; piece < pieces; ++piece) {
      for (int64_t i = 0; i < n; ++i) parts[0][i] += parts[piece][i];
    }
    return std::move(parts[0]);
  }

  // (1/2, 1, 1/2) along an axis; the point 0 stands for missing neighbours and stays 0.
  void blur(std::vector<T>& values, std::vector<T>& scratch, int64_t channels, int axis) const {
    const std::vector<int32_t>&next = next_[axis], &previous = previous_[axis];
    std::fill_n(scratch.begin(), channels, T(0));
    parallel_(points_, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin + 1; v <= end; ++v) {
        const T* a = &values[int64_t(next[v]) * channels];
        const T* b = &values[int64_t(previous[v]) * channels];
        for (int64_t c = 0; c < channels; ++c) {
          scratch[v * channels + c] = values[v * channels + c] + T(0.5) * (a[c] + b[c]);
        }
      }
    });
    values.swap(scratch);
  }

  int64_t pixels_, points_ = 0;
  const Parallel& parallel_;
  std::vector<T> weight_;        // [pixels, 6] barycentric weights
  std::vector<int32_t> vertex_;  // [pixels, 6] lattice points from 1
  std::array<std::vector<int32_t>, kVertices> next_, previous_;  // [points + 1] per axis
};

}  // namespace crf
