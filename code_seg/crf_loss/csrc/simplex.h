// The place of a pixel in the permutohedral lattice: the six vertices of its simplex and their
// weights. For the CPU and for CUDA.

#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define CRF_HOST_DEVICE __host__ __device__
#else
#define CRF_HOST_DEVICE
#endif

namespace crf {

constexpr int kFeatures = 5;
constexpr int kVertices = kFeatures + 1;  // of a simplex; also the number of blur axes
constexpr int kBits = 12;                 // of one coordinate in a key
constexpr int kRemainderBits = 3;

// A lattice point has coordinates 6 q_i + r for i < 5, with one remainder r for all of them. The
// sixth coordinate follows, because their sum is 0. The key of a point has r in its lowest bits and
// then each q_i + kOffset in 12 bits.
using Key = uint64_t;
constexpr int kOffset = 1 << (kBits - 1);

CRF_HOST_DEVICE constexpr Key axis_unit(int i) { return Key{1} << (kBits * i + kRemainderBits); }
constexpr Key kAllAxes = axis_unit(0) + axis_unit(1) + axis_unit(2) + axis_unit(3) + axis_unit(4);

// The neighbour in the positive direction of an axis: its coordinate - 5, all others + 1.
CRF_HOST_DEVICE inline Key neighbour(Key key, int axis) {
  const bool carry = (key & 7) == kFeatures;
  const Key next = carry ? key - kFeatures + kAllAxes : key + 1;
  return axis < kFeatures ? next - axis_unit(axis) : next;
}

// The neighbour in the negative direction of an axis: its coordinate + 5, all others - 1.
CRF_HOST_DEVICE inline Key neighbour_before(Key key, int axis) {
  const bool borrow = (key & 7) == 0;
  const Key next = borrow ? key + kFeatures - kAllAxes : key - 1;
  return axis < kFeatures ? next + axis_unit(axis) : next;
}

// The hash of a key. Neighbouring keys differ in few bits. Only a full mixer, that of splitmix64,
// spreads them over a table.
CRF_HOST_DEVICE inline uint64_t mix(Key key) {
  key ^= key >> 30;
  key *= 0xbf58476d1ce4e5b9ull;
  key ^= key >> 27;
  key *= 0x94d049bb133111ebull;
  return key ^ (key >> 31);
}

// Factors of the features in the projection onto the hyperplane of coordinates with sum 0. They
// make the deviation of the blur 1.
template <typename T>
struct Scale {
  T of[kFeatures];

  Scale(double sigma_xy, double sigma_rgb) {
    for (int j = 0; j < kFeatures; ++j) {
      of[j] = T(std::sqrt(2.0 / 3) * kVertices / std::sqrt(double(j + 1) * (j + 2)) /
                (j < 2 ? sigma_xy : sigma_rgb));
    }
  }
};

// The simplices that enclose the features of some pixels: the keys of their vertices and the
// barycentric weights. Every inner loop runs over the pixels, so that the compiler can use vector
// instructions.
template <typename T, int kLanes>
struct Simplices {
  T weight[kVertices][kLanes];
  Key key[kVertices][kLanes];

  // feature: the position of each pixel relative to the middle of the image, which halves the range
  // of the coordinates, and its colour. Returns false if a feature is out of range or not a number.
  CRF_HOST_DEVICE bool enclose(const T (&feature)[kFeatures][kLanes], const Scale<T>& scale) {
    T elevated[kVertices][kLanes], sum[kLanes] = {};
    for (int j = kFeatures; j > 0; --j) {
      for (int l = 0; l < kLanes; ++l) {
        const T c = feature[j - 1][l] * scale.of[j - 1];
        elevated[j][l] = sum[l] - j * c;
        sum[l] += c;
      }
    }
    for (int l = 0; l < kLanes; ++l) elevated[0][l] = sum[l];
    return enclose(elevated);
  }

 private:
  // elevated: coordinates in the hyperplane of the lattice.
  CRF_HOST_DEVICE bool enclose(const T (&elevated)[kVertices][kLanes]) {
    int32_t base[kVertices][kLanes], rank[kVertices][kLanes], total[kLanes] = {};
    T rest[kVertices][kLanes];
    // The range leaves room for the vertices and their neighbours, which are a few steps away.
    constexpr T limit = T(kVertices) * (kOffset - 8), sixth = T(1) / kVertices;
    int32_t bad = 0;
    for (int i = 0; i < kVertices; ++i) {
      for (int l = 0; l < kLanes; ++l) {
        const bool good = elevated[i][l] < limit && elevated[i][l] > -limit;  // false for NaN
        bad |= !good;
        const T e = good ? elevated[i][l] : T(0);
        // The nearest multiple of 6, by a floor without a function call.
        const T shifted = e * sixth + T(0.5);
        const int32_t truncated = static_cast<int32_t>(shifted);
        base[i][l] = truncated - (T(truncated) > shifted);
        rest[i][l] = e - T(base[i][l] * kVertices);
        total[l] += base[i][l];
      }
    }
    if (bad) return false;
    // Rank 0 has the largest rest. The ranks tell which coordinates change by 6 to make the sum 0.
    for (int i = 0; i < kVertices; ++i) {
      for (int l = 0; l < kLanes; ++l) rank[i][l] = total[l];
    }
    for (int i = 0; i < kFeatures; ++i) {
      for (int j = i + 1; j < kVertices; ++j) {
        for (int l = 0; l < kLanes; ++l) {
          const int32_t lower = rest[i][l] < rest[j][l];
          rank[i][l] += lower;
          rank[j][l] += 1 - lower;
        }
      }
    }
    for (int i = 0; i < kVertices; ++i) {
      for (int l = 0; l < kLanes; ++l) {
        const int32_t step = (rank[i][l] < 0) - (rank[i][l] > kFeatures);
        rank[i][l] += step * kVertices;
        base[i][l] += step;
        rest[i][l] -= T(step * kVertices);
      }
    }
    // The barycentric coordinates are the differences of the rests in ascending order.
    T ascending[kVertices][kLanes] = {};
    for (int k = 0; k < kVertices; ++k) {
      for (int i = 0; i < kVertices; ++i) {
        for (int l = 0; l < kLanes; ++l) {
          ascending[k][l] += rank[i][l] == kFeatures - k ? rest[i][l] * sixth : T(0);
        }
      }
    }
    for (int l = 0; l < kLanes; ++l) weight[0][l] = 1 + ascending[0][l] - ascending[kFeatures][l];
    for (int k = 1; k < kVertices; ++k) {
      for (int l = 0; l < kLanes; ++l) weight[k][l] = ascending[k][l] - ascending[k - 1][l];
    }
    for (int l = 0; l < kLanes; ++l) key[0][l] = 0;
    for (int i = 0; i < kFeatures; ++i) {
      for (int l = 0; l < kLanes; ++l) {
        key[0][l] += static_cast<Key>(base[i][l] + kOffset) << (kBits * i + kRemainderBits);
      }
    }
    // The vertex of remainder r is lower by 6 along the axes of a rank over 5 - r.
    for (int r = 1; r < kVertices; ++r) {
      for (int l = 0; l < kLanes; ++l) key[r][l] = key[r - 1][l] + 1;
      for (int i = 0; i < kFeatures; ++i) {
        for (int l = 0; l < kLanes; ++l) {
          key[r][l] -= rank[i][l] == kVertices - r ? axis_unit(i) : 0;
        }
      }
    }
    return true;
  }
};

}  // namespace crf
