// Arrays for the cases of host_shim_main.cpp, with random numbers, and comparisons of what two backends wrote. Each
// array is an allocation of its own, to the byte, so that the address sanitizer sees whatever lies outside.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "host_shim.h"

#include "cuda/layout.h"

namespace {

using namespace stdano;
using namespace stdano::host_program;

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  bool coin() { return below(2) != 0; }
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53; }
};

constexpr int64_t kSizes[] = {4, 8, 2, 2};  // in the order of Dtype
constexpr const char* kDtypes[] = {"float32", "float64", "bfloat16", "float16"};

inline Dtype compute_dtype(Dtype dtype) { return dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32; }

inline void put(void* to, int64_t i, Dtype dtype, double value) {
  const float rounded = static_cast<float>(value);
  switch (dtype) {
    case Dtype::float32: static_cast<float*>(to)[i] = rounded; break;
    case Dtype::float64: static_cast<double*>(to)[i] = value; break;
    case Dtype::bfloat16: static_cast<bfloat16*>(to)[i] = convert(rounded, bfloat16()); break;
    case Dtype::float16: static_cast<float16*>(to)[i] = convert(rounded, float16()); break;
  }
}

// Which arrays begin one element behind a multiple of 16 bytes.
constexpr int kNone = -1, kAny = -2, kAll = -3;  // or the number of a single one, in the order of a case

class Arrays {
 protected:
  Arrays(int number, int shifted) : random_{static_cast<uint64_t>(number)}, shifted_(shifted) {}
  ~Arrays() = default;

  virtual void print() const = 0;

  void* take_bytes(int64_t count, int64_t size) {
    const bool shift = shifted_ == kAll || shifted_ == taken_ || (shifted_ == kAny && random_.coin());
    ++taken_;
    memory_.emplace_back(static_cast<char*>(std::malloc(count * size + (shift ? size : 0))), std::free);
    return memory_.back().get() + (shift ? size : 0);
  }
  void* take(int64_t count, Dtype dtype) { return take_bytes(count, kSizes[static_cast<int>(dtype)]); }

  // Random numbers, with zeros, and with ones: those meet a threshold of 1 exactly.
  const void* values(int64_t count, Dtype dtype, double low, double high) {
    void* to = take(count, dtype);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t kind = low < 0 ? random_.below(8) : 7;
      put(to, i, dtype, kind == 0 ? 0 : (kind == 1 ? 1 : random_.uniform(low, high)));
    }
    return to;
  }

  // Filled differently on both sides, so that an element that nobody writes is a mismatch.
  template <class Pointer>
  void output_bytes(const char* name, int64_t count, int64_t size, Pointer& device, Pointer& cpu) {
    device = static_cast<Pointer>(take_bytes(count, size));
    memory_.emplace_back(static_cast<char*>(std::malloc(count * size)), std::free);
    void* other = memory_.back().get();
    cpu = static_cast<Pointer>(other);
    std::memset(device, 0xAB, count * size);
    std::memset(cpu, 0xCD, count * size);
    outputs_.push_back({name, device, cpu, count, size});
  }
  void output(const char* name, bool wanted, int64_t count, Dtype dtype, void*& device, void*& cpu) {
    if (wanted) output_bytes(name, count, kSizes[static_cast<int>(dtype)], device, cpu);
  }

  void compare() {
    for (const Output& o : outputs_) {
      const char *device = static_cast<const char*>(o.device), *cpu = static_cast<const char*>(o.cpu);
      for (int64_t i = 0; i < o.count; ++i) {
        if (std::memcmp(device + i * o.size, cpu + i * o.size, o.size) == 0) continue;
        fail(o.name, i);
        break;
      }
    }
  }
  void forget_outputs() { outputs_.clear(); }

  // Number `index` of the partial sums here, `which` of [slabs][count][channels] there; `one`: over all channels. The
  // terms are the same up to `tolerance` of them and `floor`, their order is not.
  void compare_sum(const char* name, int64_t index, double tolerance, const Geometry& g, const double* device,
                   int64_t which, const double* cpu, int64_t cpu_slabs, int64_t count, double floor = 0,
                   bool one = false) {
    const Slices slices = make_slices(g);
    device += index * slices.partials();
    const int64_t all = one ? slices.warps() : slices.partials();
    const int64_t own = one ? all : all / slices.slabs / g.channels;  // of a channel, one after the other
    for (int64_t channel = 0; channel < (one ? 1 : g.channels); ++channel) {
      double sum = 0, size = 0, expected = 0;
      for (int64_t i = 0; i < all; ++i) {
        if (!one && i / own % g.channels != channel) continue;
        sum += device[i];
        size += std::fabs(device[i]);
      }
      for (int64_t s = 0; s < cpu_slabs; ++s) {
        const double* of_slab = cpu + (s * count + which) * g.channels;
        for (int64_t c = 0; c < g.channels; ++c) expected += one || c == channel ? of_slab[c] : 0;
      }
      if (!(std::fabs(sum - expected) <= tolerance * size + floor)) fail(name, channel);
    }
  }

  void fail(const char* name, int64_t at) {
    if (passes_) print();
    std::printf("%s %s at %lld", passes_ ? " MISMATCH:" : ",", name, (long long)at);
    passes_ = false;
  }

  Random random_;
  bool passes_ = true;

 private:
  struct Output {
    const char* name;
    const void *device, *cpu;
    int64_t count, size;
  };

  int shifted_, taken_ = 0;
  std::vector<std::unique_ptr<char, void (*)(void*)>> memory_;
  std::vector<Output> outputs_;
};

}  // namespace
