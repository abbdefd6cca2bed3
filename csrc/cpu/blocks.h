// Blocks of neurons: how a call is cut into them, and where one's rows lie in memory. The CPU kernels are loops over
// time and over such blocks; the state of a block stays in the first-level cache over all time steps.
//
// Compiled once an instruction set, in a namespace of its own (see target.h).
#pragma once

#include <cstdlib>
#include <new>

#include "../half.h"
#include "kernels.h"

namespace stdano {
namespace STDANO_ISA {

// Forward keeps nothing but the state and, where x is not used as it lies, a chunk of steps. Backward keeps a few numbers
// for each neuron and recomputed step; the product of the two stays within the second-level cache. A block's rows shall
// be long: each begins where the processor does not see it coming.
constexpr int64_t kForwardBlock = 1024;
constexpr int64_t kBackwardWork = 8192, kBackwardBlock = 2048;
constexpr int64_t kSlabs = 64;

inline int64_t recomputed_steps(const Geometry& g) { return g.T < kCheckpointSteps ? g.T : kCheckpointSteps; }

inline int64_t forward_block(const Geometry&) { return kForwardBlock; }

inline int64_t backward_block(const Geometry& g) {
  const int64_t size = kBackwardWork / (g.T > 0 ? recomputed_steps(g) : 1);
  return size < kBackwardBlock ? size : kBackwardBlock;
}

inline int64_t count_forward_blocks(const Geometry& g) { return (g.N + kForwardBlock - 1) / kForwardBlock; }

inline int64_t count_backward_blocks(const Geometry& g) { return (g.N + backward_block(g) - 1) / backward_block(g); }

inline int64_t count_slabs(const Geometry& g, bool by_channel) {
  const int64_t blocks = count_backward_blocks(g);
  return by_channel && blocks > kSlabs ? kSlabs : blocks;
}

// Compiled once, however often it is called.
#define STDANO_APART __attribute__((noinline))

// A piece of memory that grows by rows; freed with its thread's work.
template <class real>
class Workspace {
 public:
  explicit Workspace(int64_t rows, int64_t columns) : columns_(columns) {
    data_ = static_cast<real*>(std::aligned_alloc(64, ((rows * columns * sizeof(real)) + 63) / 64 * 64));
  }
  ~Workspace() { std::free(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  real* take(int64_t rows = 1) {
    real* p = data_ + used_ * columns_;
    used_ += rows;
    return p;
  }

 private:
  real* data_;
  int64_t columns_, used_ = 0;
};

// As many values as are known at run time, each what make(its index) gives. Standard containers are not for files that
// are compiled once an instruction set: what they call has to be inlined, which gcc 13 refuses across sets.
template <class T>
class Array {
 public:
  template <class Make>
  Array(int64_t size, Make make) : data_(static_cast<T*>(std::malloc(size * sizeof(T)))), size_(size) {
    for (int64_t i = 0; i < size; ++i) new (data_ + i) T(make(i));
  }
  ~Array() {
    for (T& value : *this) value.~T();
    std::free(data_);
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T& operator[](int64_t i) { return data_[i]; }

 private:
  T* data_;
  int64_t size_;
};

// The neurons [begin, begin + size) of a call.
struct Block {
  const Geometry& g;
  int64_t begin, size;

  // Calls f(memory offset, first neuron of the block, count) for each contiguous piece of time step t.
  template <class F>
  STDANO_INLINE void pieces(int64_t t, F f) const {
    for (int64_t m = begin; m < begin + size;) {
      const int64_t outer = m / g.inner;
      const int64_t inner = m - outer * g.inner;
      const int64_t left = begin + size - m;
      const int64_t count = g.inner - inner < left ? g.inner - inner : left;
      f((outer * g.T + t) * g.inner + inner, m - begin, count);
      m += count;
    }
  }
  bool contiguous() const { return begin / g.inner == (begin + size - 1) / g.inner; }
  int64_t offset(int64_t t) const {
    const int64_t outer = begin / g.inner;
    return (outer * g.T + t) * g.inner + begin - outer * g.inner;
  }
};

inline Block block_at(const Geometry& g, int64_t index, int64_t columns) {
  const int64_t m = index * columns;
  return {g, m, g.N - m < columns ? g.N - m : columns};
}

// Copies one time step of a tensor in x's layout to a row, and back.
template <class scalar, class real>
struct Memory {
  static STDANO_APART void copy(const void* base, const Block& b, int64_t t, real* buffer) {
    const scalar* from = static_cast<const scalar*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      const scalar* __restrict in = from + offset;
      real* __restrict out = buffer + first;
      STDANO_VECTORIZE
      for (int64_t i = 0; i < count; ++i) out[i] = convert(in[i], real());
    });
  }
  static STDANO_APART void write(void* base, const Block& b, int64_t t, const real* buffer) {
    scalar* to = static_cast<scalar*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      const real* __restrict in = buffer + first;
      scalar* __restrict out = to + offset;
      STDANO_VECTORIZE
      for (int64_t i = 0; i < count; ++i) out[i] = convert(in[i], scalar());
    });
  }
};

template <class real>
struct Memory<real, real> {
  static STDANO_APART void copy(const void* base, const Block& b, int64_t t, real* buffer) {
    const real* from = static_cast<const real*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      std::memcpy(buffer + first, from + offset, count * sizeof(real));
    });
  }
  static STDANO_APART void write(void* base, const Block& b, int64_t t, const real* buffer) {
    real* to = static_cast<real*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      std::memcpy(to + offset, buffer + first, count * sizeof(real));
    });
  }
};

// Time steps of a block: where they lie, one stride apart.
template <class real>
struct StepRows {
  real* data;
  int64_t stride;
};

// Time steps [first, first + count) of a block's tensor: where they lie, if one stride apart, or copied into rows.
template <class scalar, class real>
StepRows<const real> step_rows(const void* base, const Block& b, int64_t first, int64_t count, real* buffer,
                               int64_t columns) {
  if constexpr (std::is_same<scalar, real>::value) {
    if (b.contiguous()) return {static_cast<const real*>(base) + b.offset(first), b.g.inner};
  }
  for (int64_t t = 0; t < count; ++t) Memory<scalar, real>::copy(base, b, first + t, buffer + t * columns);
  return {buffer, columns};
}

// Where steps are to be written: the memory itself, or rows for store_rows().
template <class scalar, class real>
StepRows<real> target_rows(void* base, const Block& b, int64_t first, real* buffer, int64_t columns) {
  if constexpr (std::is_same<scalar, real>::value) {
    if (b.contiguous()) return {static_cast<real*>(base) + b.offset(first), b.g.inner};
  }
  return {buffer, columns};
}
template <class scalar, class real>
void store_rows(void* base, const Block& b, int64_t first, int64_t count, StepRows<real> rows, const real* buffer) {
  if (rows.data != buffer) return;
  for (int64_t t = 0; t < count; ++t) Memory<scalar, real>::write(base, b, first + t, buffer + t * rows.stride);
}

// One time step: where it lies, or copied into `buffer`.
template <class scalar, class real>
const real* load_step(const void* base, const Block& b, int64_t t, real* buffer) {
  return step_rows<scalar, real>(base, b, t, 1, buffer, 0).data;
}

template <class real>
STDANO_LOOP void add_to(real* __restrict sum, const real* __restrict more, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) sum[i] += more[i];
}

// Four steps, last one first.
template <class real>
STDANO_LOOP void add_four(real* __restrict sum, const real* __restrict first, int64_t stride, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    sum[i] = sum[i] + first[i + 3 * stride] + first[i + 2 * stride] + first[i + stride] + first[i];
  }
}

// All of them, last one first.
template <class real>
void add_steps(real* sum, StepRows<real> rows, int64_t count, int64_t n) {
  for (; count >= 4; count -= 4) add_four(sum, rows.data + (count - 4) * rows.stride, rows.stride, n);
  while (--count >= 0) add_to(sum, rows.data + count * rows.stride, n);
}

}  // namespace STDANO_ISA
}  // namespace stdano
