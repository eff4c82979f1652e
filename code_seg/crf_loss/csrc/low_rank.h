// The Gaussian kernel W, approximated with a few landmark colours:
//
//   W ~ sum_kl C_k (M^-1)_kl G C_l
//
// C_k(p) is the colour kernel between pixel p and landmark k, M the colour kernel among the
// landmarks, and G the spatial kernel. Pivoted Cholesky chooses the landmarks and bounds the error
// (Harbrecht, Peters & Schneider, 2012). G is applied through nodes on a coarse grid, where M^-1
// costs almost nothing. The result is symmetric and positive semi-definite, as W is. This file does
// not need torch.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fast_exp.h"
#include "parallel.h"

namespace crf {

constexpr int64_t kSample = 4096;  // pixels of an image among which landmarks are chosen
constexpr double kSpacing = 0.7;   // of the nodes in units of sigma_xy; the ripple is below 1e-4
constexpr double kReach = 3;       // of a node in sigma_xy: its Gaussian, 1e-4 there, is cut off
constexpr double kMargin = 2.5;    // of the nodes around the image in units of sigma_xy
constexpr int kBlock = 4;          // pixels of a row that are computed together

// The width of a vector register. Wider types would go through memory.
#if defined(__AVX512F__)
#define CRF_VECTOR_BYTES 64
#elif defined(__AVX__)
#define CRF_VECTOR_BYTES 32
#else
#define CRF_VECTOR_BYTES 16
#endif

// A vector of numbers that are added and scaled together. A signal has one number per landmark.
template <typename T>
struct Pack {
  static constexpr int size = CRF_VECTOR_BYTES / sizeof(T);
  typedef T Vector __attribute__((vector_size(CRF_VECTOR_BYTES)));
  Vector v = {};

  void add(const Pack& other) { v += other.v; }
  void add(T scale, const Pack& other) { v += scale * other.v; }
  void add(const Pack& a, const Pack& b) { v += a.v * b.v; }

  T sum() const {
    T total = 0;
    for (int i = 0; i < size; ++i) total += v[i];
    return total;
  }
};

// Gaussians A(n, x) around nodes n on a line, such that
// sum_n A(n, x) A(n, y) = exp(-(x - y)^2 / 2 sigma^2).
template <typename T>
class Nodes {
 public:
  Nodes(int64_t length, double sigma) : spacing_(kSpacing * sigma), origin_(-kMargin * sigma) {
    count_ = static_cast<int64_t>(std::ceil((length - 1 + 2 * kMargin * sigma) / spacing_)) + 1;
    // For a block of pixels. A tiny image has fewer nodes than this.
    reach_ = static_cast<int64_t>((2 * kReach * sigma + kBlock - 1) / spacing_) + 1;
    reach_ = std::min(reach_, count_);
    weight_.resize(length * reach_);
    first_.resize(length);
    const double scale = std::sqrt(kSpacing / std::sqrt(std::acos(-1.0) / 2));
    for (int64_t x = 0; x < length; ++x) {
      const int64_t block = x - x % kBlock;  // the pixels of a block share their nodes
      const double left = (block - kReach * sigma - origin_) / spacing_;
      first_[x] = std::clamp<int64_t>(std::ceil(left), 0, count_ - reach_);
      for (int64_t n = 0; n < reach_; ++n) {
        const double d = ((first_[x] + n) * spacing_ + origin_ - x) / sigma;
        weight_[x * reach_ + n] = T(scale * std::exp(-d * d));
      }
    }
  }

  int64_t count() const { return count_; }
  int64_t reach() const { return reach_; }  // number of nodes that reach a pixel
  int64_t first(int64_t x) const { return first_[x]; }
  const T* weights(int64_t x) const { return &weight_[x * reach_]; }

 private:
  double spacing_, origin_;
  int64_t count_, reach_;
  std::vector<T> weight_;
  std::vector<int64_t> first_;
};

// Landmark colours of one image and the inverse of their kernel, for LowRankFilter.
template <typename T>
struct Landmarks {
  static constexpr int kPack = Pack<T>::size;
  int64_t padded = 0;            // number of landmarks, rounded up to whole packs
  double residual = 1;           // mean of 1 - |phi|^2, the part of a colour not represented
  std::vector<T> colour;         // [3, padded] in units of sigma_rgb
  std::vector<Pack<T>> inverse;  // [padded, padded / kPack], 0 after the last landmark

  Landmarks(const T* rgb, int64_t pixels, T sigma_rgb, double tolerance, int64_t max_rank) {
    const int64_t stride = std::max<int64_t>(1, pixels / kSample);
    const int64_t n = (pixels + stride - 1) / stride;
    std::vector<T> sample(3 * n), rest(n, T(1)), column(n);
    for (int c = 0; c < 3; ++c) {
      for (int64_t i = 0; i < n; ++i) sample[c * n + i] = rgb[c * pixels + i * stride] / sigma_rgb;
    }
    // The next landmark is the colour that the features so far represent worst.
    std::vector<std::vector<T>> features;
    std::vector<int64_t> pivots;
    while (static_cast<int64_t>(pivots.size()) < max_rank) {
      const int64_t pivot = std::max_element(rest.begin(), rest.end()) - rest.begin();
      const T r = sample[pivot], g = sample[n + pivot], b = sample[2 * n + pivot];
      const T scale = 1 / std::sqrt(std::max(rest[pivot], T(1e-7)));
      for (int64_t i = 0; i < n; ++i) {
        const T dr = sample[i] - r, dg = sample[n + i] - g, db = sample[2 * n + i] - b;
        column[i] = exp_negative(T(-0.5) * (dr * dr + dg * dg + db * db));
      }
      for (const std::vector<T>& feature : features) {
        const T at = feature[pivot];
        for (int64_t i = 0; i < n; ++i) column[i] -= at * feature[i];
      }
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        column[i] *= scale;
        rest[i] = std::max(T(0), rest[i] - column[i] * column[i]);
        sum += rest[i];
      }
      pivots.push_back(pivot);
      features.push_back(column);
      residual = sum / n;
      if (residual < tolerance) break;
    }
    const int64_t rank = static_cast<int64_t>(pivots.size());
    padded = (rank + kPack - 1) / kPack * kPack;
    colour.assign(3 * padded, T(0));
    for (int c = 0; c < 3; ++c) {
      for (int64_t k = 0; k < rank; ++k) colour[c * padded + k] = sample[c * n + pivots[k]];
    }
    if (residual < tolerance) invert(rank);
  }

 private:
  // Inverts M by Cholesky, in double precision: its smallest eigenvalues are about the last pivot's
  // rest.
  void invert(int64_t rank) {
    const double ridge = sizeof(T) == 4 ? 1e-6 : 1e-12;
    std::vector<double> low(rank * rank, 0), inv(rank * rank, 0);
    for (int64_t i = 0; i < rank; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        double d2 = 0;
        for (int c = 0; c < 3; ++c) {
          const double d = double(colour[c * padded + i]) - colour[c * padded + j];
          d2 += d * d;
        }
        double sum = std::exp(-d2 / 2) + (i == j ? ridge : 0);
        for (int64_t k = 0; k < j; ++k) sum -= low[i * rank + k] * low[j * rank + k];
        low[i * rank + j] = i == j ? std::sqrt(std::max(sum, ridge)) : sum / low[j * rank + j];
      }
    }
    for (int64_t j = 0; j < rank; ++j) {  // inv = low^-1, a lower triangle
      for (int64_t i = j; i < rank; ++i) {
        double sum = i == j;
        for (int64_t k = j; k < i; ++k) sum -= low[i * rank + k] * inv[k * rank + j];
        inv[i * rank + j] = sum / low[i * rank + i];
      }
    }
    inverse.assign(padded * padded / kPack, Pack<T>());
    for (int64_t i = 0; i < rank; ++i) {
      for (int64_t j = 0; j < rank; ++j) {
        double sum = 0;
        for (int64_t k = std::max(i, j); k < rank; ++k)
          sum += inv[k * rank + i] * inv[k * rank + j];
        inverse[(i * padded + j) / kPack].v[j % kPack] = T(sum);
      }
    }
  }
};

// Computes W values of one image, whose landmarks are given. rgb, values and out are planes of
// height x width pixels.
template <typename T>
class LowRankFilter {
  static constexpr int kPack = Pack<T>::size;
  using Packs = std::vector<Pack<T>>;

 public:
  LowRankFilter(const Landmarks<T>& landmarks, const T* rgb, int64_t height, int64_t width,
                double sigma_xy, T sigma_rgb, const Parallel& parallel)
      : landmarks_(landmarks),
        rgb_(rgb),
        height_(height),
        width_(width),
        pixels_(height * width),
        packs_(landmarks.padded / kPack),
        inverse_sigma_(1 / sigma_rgb),
        rows_(height, sigma_xy),
        columns_(width, sigma_xy),
        parallel_(parallel) {}

  void operator()(const T* values, T* out, int64_t channels) const {
    const Packs spread = apply_inverse(splat(values, channels), channels);
    parallel_(height_, [&](int64_t begin, int64_t end) {
      Packs line(columns_.count() * channels * packs_), kernel(kBlock * packs_);
      std::vector<T> scratch(kBlock * landmarks_.padded);
      for (int64_t y = begin; y < end; ++y) {
        gather_row(spread, y, channels, line);
        for (int64_t x = 0; x < width_; x += kBlock) {
          colour_kernel(y, x, scratch, kernel);
          for (int64_t c = 0; c < channels; ++c) {
            slice_block(line, kernel, x, c, channels, out + c * pixels_ + y * width_);
          }
        }
      }
    });
  }

 private:
  // The colour kernel C_k of a block of pixels: [kBlock, packs].
  void colour_kernel(int64_t y, int64_t x0, std::vector<T>& out, Packs& kernel) const {
    const int64_t padded = landmarks_.padded;
    const T* colour = landmarks_.colour.data();
    for (int64_t j = 0; j < std::min<int64_t>(kBlock, width_ - x0); ++j) {
      const T* p = rgb_ + y * width_ + x0 + j;
      const T r = p[0] * inverse_sigma_, g = p[pixels_] * inverse_sigma_,
              b = p[2 * pixels_] * inverse_sigma_;
      for (int64_t k = 0; k < padded; ++k) {
        const T dr = r - colour[k], dg = g - colour[padded + k], db = b - colour[2 * padded + k];
        out[j * padded + k] = exp_negative(T(-0.5) * (dr * dr + dg * dg + db * db));
      }
    }
    for (int64_t i = 0; i < kBlock * packs_; ++i)
      std::memcpy(&kernel[i].v, &out[i * kPack], sizeof kernel[i].v);
  }

  // sum_p A(ny, y) A(nx, x) C_k(p) v_c(p) at each node: [row nodes, column nodes, channels, packs].
  Packs splat(const T* values, int64_t channels) const {
    const int64_t line_size = columns_.count() * channels * packs_;
    const int64_t strips = strips_of(height_, width_);
    struct Strip {
      int64_t first = 0;
      Packs nodes;
    };
    std::vector<Strip> parts(strips);
    parallel_(strips, [&](int64_t begin, int64_t end) {
      Packs line(line_size), kernel(kBlock * packs_);
      std::vector<T> scratch(kBlock * landmarks_.padded);
      for (int64_t s = begin; s < end; ++s) {
        const int64_t y0 = s * height_ / strips, y1 = (s + 1) * height_ / strips;
        Strip& part = parts[s];
        part.first = rows_.first(y0);
        part.nodes.assign((rows_.first(y1 - 1) + rows_.reach() - part.first) * line_size,
                          Pack<T>());
        for (int64_t y = y0; y < y1; ++y) {
          std::fill(line.begin(), line.end(), Pack<T>());
          for (int64_t x = 0; x < width_; x += kBlock) {
            colour_kernel(y, x, scratch, kernel);
            for (int64_t c = 0; c < channels; ++c) {
              splat_block(values + c * pixels_ + y * width_, kernel, x, c, channels, line);
            }
          }
          const T* weight = rows_.weights(y);
          for (int64_t n = 0; n < rows_.reach(); ++n) {
            Pack<T>* to = &part.nodes[(rows_.first(y) + n - part.first) * line_size];
            for (int64_t i = 0; i < line_size; ++i) to[i].add(weight[n], line[i]);
          }
        }
      }
    });
    Packs nodes(rows_.count() * line_size, Pack<T>());
    for (const Strip& part : parts) {
      Pack<T>* to = &nodes[part.first * line_size];
      for (size_t i = 0; i < part.nodes.size(); ++i) to[i].add(part.nodes[i]);
    }
    return nodes;
  }

  void splat_block(const T* values, const Packs& kernel, int64_t x0, int64_t c, int64_t channels,
                   Packs& line) const {
    const int64_t pixels = std::min<int64_t>(kBlock, width_ - x0);
    for (int64_t n = 0; n < columns_.reach(); ++n) {
      T weight[kBlock] = {};
      for (int64_t j = 0; j < pixels; ++j) weight[j] = columns_.weights(x0 + j)[n] * values[x0 + j];
      Pack<T>* to = &line[((columns_.first(x0) + n) * channels + c) * packs_];
      for (int64_t k = 0; k < packs_; ++k) {
        Pack<T> sum = to[k];
        for (int j = 0; j < kBlock; ++j) sum.add(weight[j], kernel[j * packs_ + k]);
        to[k] = sum;
      }
    }
  }

  // sum_l (M^-1)_kl S_l at each node and channel.
  Packs apply_inverse(const Packs& spread, int64_t channels) const {
    Packs out(spread.size());
    const Packs& inverse = landmarks_.inverse;
    parallel_(rows_.count(), [&](int64_t begin, int64_t end) {
      const int64_t signals = columns_.count() * channels;
      for (int64_t s = begin * signals; s < end * signals; ++s) {
        const Pack<T>* from = &spread[s * packs_];
        for (int64_t k = 0; k < packs_; ++k) {
          Pack<T> sum;
          for (int64_t l = 0; l < landmarks_.padded; ++l) {
            sum.add(from[l / kPack].v[l % kPack], inverse[l * packs_ + k]);
          }
          out[s * packs_ + k] = sum;
        }
      }
    });
    return out;
  }

  void gather_row(const Packs& spread, int64_t y, int64_t channels, Packs& line) const {
    const int64_t line_size = columns_.count() * channels * packs_;
    std::fill(line.begin(), line.end(), Pack<T>());
    for (int64_t n = 0; n < rows_.reach(); ++n) {
      const T weight = rows_.weights(y)[n];
      const Pack<T>* from = &spread[(rows_.first(y) + n) * line_size];
      for (int64_t i = 0; i < line_size; ++i) line[i].add(weight, from[i]);
    }
  }

  void slice_block(const Packs& line, const Packs& kernel, int64_t x0, int64_t c, int64_t channels,
                   T* out) const {
    const int64_t pixels = std::min<int64_t>(kBlock, width_ - x0);
    Pack<T> total[kBlock];
    for (int64_t k = 0; k < packs_; ++k) {
      Pack<T> sum[kBlock];
      for (int64_t n = 0; n < columns_.reach(); ++n) {
        const Pack<T>& from = line[((columns_.first(x0) + n) * channels + c) * packs_ + k];
        for (int j = 0; j < kBlock; ++j) {
          sum[j].add(columns_.weights(std::min(x0 + j, width_ - 1))[n], from);
        }
      }
      for (int j = 0; j < kBlock; ++j) total[j].add(sum[j], kernel[j * packs_ + k]);
    }
    for (int64_t j = 0; j < pixels; ++j) out[x0 + j] = total[j].sum();
  }

  const Landmarks<T>& landmarks_;
  const T* rgb_;
  int64_t height_, width_, pixels_, packs_;
  T inverse_sigma_;
  Nodes<T> rows_, columns_;
  const Parallel& parallel_;
};

}  // namespace crf
