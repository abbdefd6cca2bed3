// Sums of numbers and of their squares, right to 1e-12 of the sums of absolute values.
#pragma once

#include <type_traits>

#include "../half.h"

// Devices for graphics take 64 times as long for an operation in double as for one in float.
#if __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ == 1200 || __CUDA_ARCH__ == 1210
#define STDANO_SLOW_DOUBLE true
#elif !defined(STDANO_SLOW_DOUBLE)
#define STDANO_SLOW_DOUBLE false
#endif

namespace stdano {
namespace STDANO_ISA {

// The square of a float is exact in double, so no fma is needed here.
struct DoubleSums {
  double all[2] = {};

  template <class real, int count>
  STDANO_INLINE void add(const real (&numbers)[count]) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const double x = numbers[k];
      all[0] += x;
      all[1] += x * x;
    }
  }
  STDANO_INLINE void finish() {}
};

// The same for floats, in 17 operations of float for each.
struct FloatSums : DoubleSums {
  static constexpr int most = 32;

  // `low` gathers what rounding takes from `high`. It is a float itself: behind `most` numbers its own errors are at most
  // 7e-13 of the sum.
  struct Pair {
    float high = 0, low = 0;

    STDANO_INLINE float add(float x) {  // what rounding takes
      const float before = high;
      high += x;
      const float added = high - before;
      return (before - (high - added)) + (x - added);
    }
    STDANO_INLINE void move_to(double& to) {
      to += static_cast<double>(high) + static_cast<double>(low);
      high = low = 0;
    }
  };
  Pair sum, squares;
  int room = most;

  // Numbers whose squares a float and its rest cannot hold are rare.
  template <int count>
  STDANO_INLINE void add(const float (&numbers)[count]) {
    bool fit = true;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const float size = abs_(numbers[k]);
      fit = fit && size < 0x1p60f && (size > 0x1p-50f || size == 0);
    }
    if (!fit) return DoubleSums::add(numbers);
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const float x = numbers[k], square = x * x;
      sum.low += sum.add(x);
      squares.low += squares.add(square) + fma_(x, x, -square);
    }
    room -= count;
    if (room < 4) finish();
  }
  STDANO_INLINE void finish() {
    sum.move_to(all[0]);
    squares.move_to(all[1]);
    room = most;
  }
};

template <class real>
using SumsOf = std::conditional_t<STDANO_SLOW_DOUBLE && sizeof(real) == 4, FloatSums, DoubleSums>;

}  // namespace STDANO_ISA
}  // namespace stdano
