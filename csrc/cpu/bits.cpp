// Spikes as bits, on the CPU. Not compiled once an instruction set: it waits for memory whatever there is.
#define STDANO_ISA packing
#include <algorithm>

#include "../half.h"
#include "kernels.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int64_t kPart = 1024;  // values that are handled at once; a multiple of 8

int64_t count_parts(const BitsCall& call) { return (call.count + kPart - 1) / kPart; }

namespace {

// The value of every number that the planes can hold, and how to compare with it: as what lies in memory, in which -0
// and NaN are values of their own.
template <class scalar, class real, class Word>
struct Values {
  static_assert(sizeof(scalar) == sizeof(Word));
  Word of[1 << kMostPlanes];
  int most;
  real scale;

  explicit Values(const BitsCall& call) : most((1 << call.planes) - 1), scale(real(call.scale)) {
    for (int q = 0; q <= most; ++q) of[q] = bit_cast<Word>(convert(real(q) / scale, scalar()));
  }

  // Numbers of n values; whether each is one of those above.
  bool to_numbers(const Word* values, int64_t n, uint8_t* numbers) const {
    Word wrong = 0;
    if (most == 1) {
      const Word one = of[1];
      for (int64_t i = 0; i < n; ++i) {
        const Word fired = values[i] == one;
        wrong |= values[i] ^ (fired ? one : 0);
        numbers[i] = static_cast<uint8_t>(fired);
      }
      return wrong == 0;
    }
    const real limit = real(most) / scale;
    for (int64_t i = 0; i < n; ++i) {
      const real value = convert(bit_cast<scalar>(values[i]), real());
      const int q = value >= 0 && value <= limit ? static_cast<int>(value * scale + real(0.5)) : 0;
      numbers[i] = static_cast<uint8_t>(q);
      wrong |= of[q] ^ values[i];
    }
    return wrong == 0;
  }
};

// Eight bytes of 0 or 1 to one, and back.
inline uint8_t gather(uint64_t bytes) { return static_cast<uint8_t>(bytes * 0x0102040810204080ull >> 56); }
inline uint64_t spread(uint64_t byte) {
  const uint64_t each = (byte * 0x0101010101010101ull) & 0x8040201008040201ull;
  return (each + 0x7F7F7F7F7F7F7F7Full) >> 7 & 0x0101010101010101ull;  // a byte that is not 0 reaches its highest bit
}

template <class scalar, class real, class Word>
bool pack_as(const BitsCall& call, int64_t begin, int64_t end) {
  const Values<scalar, real, Word> values(call);
  for (int64_t part = begin; part < end; ++part) {
    const int64_t first = part * kPart, n = std::min(kPart, call.count - first);
    uint8_t numbers[kPart] = {};
    if (!values.to_numbers(static_cast<const Word*>(call.values) + first, n, numbers)) return false;
    for (int p = 0; p < call.planes; ++p) {
      uint8_t* to = call.bits + p * call.plane + first / 8;
      for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, numbers + i, 8);
        *to++ = gather(eight >> p & 0x0101010101010101ull);
      }
    }
  }
  return true;
}

template <class scalar, class real, class Word>
void unpack_as(const BitsCall& call, int64_t begin, int64_t end) {
  const Values<scalar, real, Word> values(call);
  // What each byte stands for where there is one plane.
  Word eight[1 << 8][8];
  for (int byte = 0; call.planes == 1 && byte < 1 << 8; ++byte) {
    for (int i = 0; i < 8; ++i) eight[byte][i] = values.of[byte >> i & 1];
  }
  const int64_t last = std::min(end * kPart, call.count) / 8;
  for (int64_t at = begin * kPart / 8; at < last; ++at) {
    Word* to = static_cast<Word*>(call.values) + 8 * at;
    if (call.planes == 1) {
      std::memcpy(to, eight[call.bits[at]], sizeof(*eight));
      continue;
    }
    uint64_t numbers = 0;
    for (int p = 0; p < call.planes; ++p) numbers |= spread(call.bits[p * call.plane + at]) << p;
    for (int i = 0; i < 8; ++i) to[i] = values.of[numbers >> 8 * i & 0xFF];
  }
}

// Calls f with a number of each type: in memory, of its arithmetic, and of its bits.
template <class F>
auto for_dtype(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::float64: return f(double(), double(), uint64_t());
    case Dtype::bfloat16: return f(bfloat16(), float(), uint16_t());
    case Dtype::float16: return f(float16(), float(), uint16_t());
    default: return f(float(), float(), uint32_t());
  }
}

}  // namespace

bool pack(const BitsCall& call, int64_t begin, int64_t end) {
  return for_dtype(call.dtype, [&](auto scalar, auto real, auto word) {
    return pack_as<decltype(scalar), decltype(real), decltype(word)>(call, begin, end);
  });
}

void unpack(const BitsCall& call, int64_t begin, int64_t end) {
  for_dtype(call.dtype, [&](auto scalar, auto real, auto word) {
    unpack_as<decltype(scalar), decltype(real), decltype(word)>(call, begin, end);
  });
}

}  // namespace STDANO_ISA
}  // namespace stdano
