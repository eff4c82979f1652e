// exp for the loops over landmarks and window pixels, in a form that compilers vectorise.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace crf {

// e^x for x <= 0, with a relative error below 2e-7. Below -87 it is 1.6e-38, not a denormal number.
inline float exp_negative(float x) {
  x = x > -87.f ? x : -87.f;
  // x = n ln 2 + f with |f| <= ln 2 / 2. The cast truncates towards 0, so n is the nearest integer.
  const int32_t n = static_cast<int32_t>(x * 1.44269504f - 0.5f);
  const float f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.f / 5040;
  p = p * f + 1.f / 720;
  p = p * f + 1.f / 120;
  p = p * f + 1.f / 24;
  p = p * f + 1.f / 6;
  p = p * f + 0.5f;
  p = p * f + 1.f;
  p = p * f + 1.f;
  const int32_t bits = (n + 127) << 23;  // 2^n
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

inline double exp_negative(double x) { return std::exp(x); }

}  // namespace crf
