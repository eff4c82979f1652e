// The permutohedral lattice written down plainly from Adams, Baek & Davis (2010) and Kraehenbuehl &
// Koltun (2011): one thread, one signal per build, blurs in one order. What the benchmark of the
// CRF loss compares with; loaded through ctypes.
//
//   g++ -O3 -shared -fPIC plain_lattice.cpp -o plain_lattice.so

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int d = 5;

struct Table {
  std::vector<int16_t> keys;  // d coordinates per entry
  std::vector<int32_t> slots;
  size_t count = 0;

  explicit Table(size_t entries) : keys(entries * d), slots(2 * entries, -1) {}

  // Entry of a key; -1 where it is absent and not to be created.
  int32_t find(const int16_t* key, bool create) {
    size_t hash = 0;
    for (int i = 0; i < d; ++i) hash = (hash + static_cast<uint16_t>(key[i])) * 1664525;
    for (size_t slot = hash % slots.size();; slot = (slot + 1) % slots.size()) {
      if (slots[slot] < 0) {
        if (!create) return -1;
        std::memcpy(&keys[count * d], key, sizeof(int16_t) * d);
        return slots[slot] = static_cast<int32_t>(count++);
      }
      if (!std::memcmp(&keys[slots[slot] * d], key, sizeof(int16_t) * d)) return slots[slot];
    }
  }
};

}  // namespace

extern "C" void plain_lattice(const float* rgb, const float* values, float* out, int height,
                              int width, float sigma_xy, float sigma_rgb) {
  const int n = height * width;
  Table table(static_cast<size_t>(n) * (d + 1));
  std::vector<int32_t> vertex(static_cast<size_t>(n) * (d + 1));
  std::vector<float> weight(static_cast<size_t>(n) * (d + 1));
  float scale[d];
  for (int i = 0; i < d; ++i) {
    scale[i] = std::sqrt(2.f / 3) * (d + 1) / std::sqrt((i + 1.f) * (i + 2.f));
  }
  for (int p = 0; p < n; ++p) {
    const float feature[d] = {(p % width - width / 2.f) / sigma_xy,
                              (p / width - height / 2.f) / sigma_xy, rgb[p] / sigma_rgb,
                              rgb[n + p] / sigma_rgb, rgb[2 * n + p] / sigma_rgb};
    float elevated[d + 1], sum = 0;
    for (int j = d; j > 0; --j) {
      const float c = feature[j - 1] * scale[j - 1];
      elevated[j] = sum - j * c;
      sum += c;
    }
    elevated[0] = sum;
    int near[d + 1], rank[d + 1] = {}, total = 0;
    for (int i = 0; i <= d; ++i) {
      near[i] = static_cast<int>(std::floor(elevated[i] / (d + 1) + 0.5f)) * (d + 1);
      total += near[i] / (d + 1);
    }
    for (int i = 0; i < d; ++i) {
      for (int j = i + 1; j <= d; ++j) {
        ++rank[elevated[i] - near[i] < elevated[j] - near[j] ? i : j];
      }
    }
    float barycentric[d + 2] = {};
    for (int i = 0; i <= d; ++i) {
      rank[i] += total;
      if (rank[i] < 0) {
        rank[i] += d + 1;
        near[i] += d + 1;
      } else if (rank[i] > d) {
        rank[i] -= d + 1;
        near[i] -= d + 1;
      }
      const float rest = (elevated[i] - near[i]) / (d + 1);
      barycentric[d - rank[i]] += rest;
      barycentric[d + 1 - rank[i]] -= rest;
    }
    barycentric[0] += 1 + barycentric[d + 1];
    for (int r = 0; r <= d; ++r) {
      int16_t key[d];
      for (int i = 0; i < d; ++i) {
        key[i] = static_cast<int16_t>(near[i] + (rank[i] <= d - r ? r : r - (d + 1)));
      }
      vertex[p * (d + 1) + r] = table.find(key, true);
      weight[p * (d + 1) + r] = barycentric[r];
    }
  }
  std::vector<float> field(table.count, 0.f), blurred(table.count);
  for (int p = 0; p < n; ++p) {
    for (int r = 0; r <= d; ++r) {
      field[vertex[p * (d + 1) + r]] += weight[p * (d + 1) + r] * values[p];
    }
  }
  for (int axis = 0; axis <= d; ++axis) {
    for (size_t v = 0; v < table.count; ++v) {
      int16_t up[d], down[d];
      for (int i = 0; i < d; ++i) {
        up[i] = table.keys[v * d + i] + (i == axis ? -d : 1);
        down[i] = table.keys[v * d + i] - (i == axis ? -d : 1);
      }
      const int32_t a = table.find(up, false), b = table.find(down, false);
      blurred[v] = field[v] + 0.5f * ((a < 0 ? 0 : field[a]) + (b < 0 ? 0 : field[b]));
    }
    field.swap(blurred);
  }
  const float alpha = 1 / (1 + std::pow(2.f, -d));
  for (int p = 0; p < n; ++p) {
    out[p] = 0;
    for (int r = 0; r <= d; ++r) {
      out[p] += alpha * weight[p * (d + 1) + r] * field[vertex[p * (d + 1) + r]];
    }
  }
}
