// Random images through the CPU kernels, for the sanitizers: fuzz SEED ROUNDS. Exit status 1 where
// a result is wrong: not finite, not symmetric, or different with other threads.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "../../code_seg/crf_loss/csrc/low_rank.h"
#include "../../code_seg/crf_loss/csrc/permutohedral.h"
#include "../../code_seg/crf_loss/csrc/window.h"

namespace {

crf::Parallel with_threads(int count) {
  return [count](int64_t n, const crf::Loop& loop) {
    std::vector<std::thread> threads;
    for (int t = 0; t < count; ++t) {
      threads.emplace_back([&, t] { loop(n * t / count, n * (t + 1) / count); });
    }
    for (auto& thread : threads) thread.join();
  };
}

template <typename T>
std::vector<T> random_image(std::mt19937& rng, int64_t n, int kind) {
  std::vector<T> image(3 * n);
  std::uniform_real_distribution<T> uniform(0, 1);
  for (T& v : image) {
    v = kind == 0 ? T(0.5) : kind == 1 ? uniform(rng) : std::round(uniform(rng) * 3) / 3;
  }
  // Out of range, or no number at all: has to be refused.
  if (kind == 3) image[rng() % image.size()] = std::numeric_limits<T>::quiet_NaN();
  if (kind == 4) image[rng() % image.size()] = T(1e30);
  if (kind == 5) image[rng() % image.size()] = -std::numeric_limits<T>::infinity();
  return image;
}

template <typename T>
bool one_round(std::mt19937& rng, T tolerance) {
  // Now and then an image large enough for several strips and pieces.
  const int64_t side = rng() % 16 == 0 ? 600 : 40;
  const int64_t height = 1 + rng() % side, width = 1 + rng() % side, n = height * width;
  const int kind = rng() % 6, channels = 1 + rng() % 6;
  const T sigma_xy = T(0.5) + rng() % 12, sigma_rgb = T(0.02) * (1 + rng() % 20);
  const std::vector<T> image = random_image<T>(rng, n, kind);
  std::vector<T> values(n * channels), out(n * channels), again(n * channels);
  std::normal_distribution<T> normal;
  for (T& v : values) v = normal(rng);
  const crf::Parallel one = with_threads(1), several = with_threads(3);
  try {
    crf::Lattice<T> a(height, width, sigma_xy, sigma_rgb, one);
    crf::Lattice<T> b(height, width, sigma_xy, sigma_rgb, several);
    b.build(std::vector<T>(3 * n, T(0.5)).data());  // of another image first, in the same memory
    a.build(image.data());
    b.build(image.data());
    a.filter(values.data(), out.data(), channels);
    b.filter(values.data(), again.data(), channels);
  } catch (const std::range_error&) {
    return kind >= 3;
  }
  if (kind >= 3 || out != again) return false;
  if (channels >= 2) {  // symmetric: y . Wx == x . Wy
    T left = 0, right = 0, size = 0;
    for (int64_t p = 0; p < n; ++p) {
      left += values[n + p] * out[p];
      right += values[p] * out[n + p];
      size += std::abs(values[n + p] * out[p]);
    }
    if (!(std::abs(left - right) <= tolerance * (size + 1))) return false;
  }
  if (n <= 1600) {
    crf::window_filter(image.data(), values.data(), out.data(), channels, height, width, sigma_xy,
                       sigma_rgb, static_cast<int64_t>(rng() % 9), several);
  }
  for (T v : out) {
    if (!std::isfinite(v)) return false;
  }
  if (kind != 1) {  // noise has more colours than landmarks
    const crf::Landmarks<T> landmarks(image.data(), n, sigma_rgb, 1e-3, 160);
    if (!(landmarks.residual < 1e-3)) return false;
    const crf::LowRankFilter<T> a(landmarks, image.data(), height, width, sigma_xy, sigma_rgb, one);
    const crf::LowRankFilter<T> b(landmarks, image.data(), height, width, sigma_xy, sigma_rgb,
                                  several);
    a(values.data(), out.data(), channels);
    b(values.data(), again.data(), channels);
    if (out != again) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::mt19937 rng(argc > 1 ? std::atoi(argv[1]) : 0);
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 100;
  for (int round = 0; round < rounds; ++round) {
    if (!one_round<float>(rng, 1e-3f) || !one_round<double>(rng, 1e-10)) {
      std::printf("wrong result in round %d\n", round);
      return 1;
    }
  }
  std::printf("%d rounds\n", rounds);
  return 0;
}
