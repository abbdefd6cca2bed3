// What all launches share: how work is divided among threads, and a launch itself. Free of torch, like the kernels.
#pragma once

#include "arguments.h"

// A host build defines this as a loop over the grid.
#ifndef STDANO_LAUNCH
#define STDANO_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace stdano {
namespace STDANO_ISA {

// Threads that a device is kept busy with where sums are taken: more work than these go through is done in sequence.
constexpr int64_t kSumThreads = 131072;
constexpr int64_t kSumColumns = 65536;

inline Slices make_slices(const Geometry& g) {
  const int64_t columns = g.channels > 1 ? g.channels * g.channel_stride : (g.N < kSumColumns ? g.N : kSumColumns);
  const int64_t rows = (g.N + columns - 1) / columns;
  const int64_t wanted = kSumThreads / columns < 1 ? 1 : kSumThreads / columns;
  const int64_t slabs = wanted < rows ? wanted : rows;
  return {columns, slabs, static_cast<int>((rows + slabs - 1) / slabs)};
}

inline void fill_layout(Layout& a, const Geometry& g) {
  a.g = g;
  a.inner = make_divisor(g.inner);
  a.channel_stride = make_divisor(g.channel_stride);
  a.channels = make_divisor(g.channels);
}

inline unsigned count_blocks(int64_t threads, int64_t block) {
  return static_cast<unsigned>((threads + block - 1) / block);
}

template <class... Pointers>
bool all_aligned(int bytes, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

template <class scalar_, class real_>
struct Numbers {
  using scalar = scalar_;
  using real = real_;
};

template <class F>
void choose_numbers(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::float32: return f(Numbers<float, float>());
    case Dtype::float64: return f(Numbers<double, double>());
    case Dtype::bfloat16: return f(Numbers<bfloat16, float>());
    case Dtype::float16: return f(Numbers<float16, float>());
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
