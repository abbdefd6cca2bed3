// Runs calls through the CUDA kernels (on the host, see host_shim.h) and through the CPU kernels, and compares every
// output in all bits. Prints a line for each mismatch and a final count. With a number as argument only the case of
// that number runs.
#define STDANO_ISA host_program
#include <sanitizer/common_interface_defs.h>

#include <functional>
#include <utility>

#include "host_shim_case.h"
#include "host_shim_channels_case.h"

Device devices[3];
ChannelDevice channel_device;

namespace {

std::function<void()> print_current = [] {};
int only = -1, cases = 0, mismatches = 0, number = 0;

void check(Case c) {
  c.number = number++;
  const Device& device = devices[static_cast<int>(c.neuron)];
  if (!device.forward || !device.has(c.dtype, c.soft_reset) || (only >= 0 && c.number != only)) return;
  print_current = [c] { c.print(); };
  ++cases;
  if (Run(c).passes()) return;
  ++mismatches;
  std::printf("\n");
}

void check(ChannelCase c) {
  c.number = number++;
  if (!channel_device.encode || !channel_device.has(c.dtype) || (only >= 0 && c.number != only)) return;
  print_current = [c] { c.print(); };
  ++cases;
  if (ChannelRun(c).passes()) return;
  ++mismatches;
  std::printf("\n");
}

// One of the divisors of n.
int64_t some_divisor(Random& random, int64_t n) {
  std::vector<int64_t> all;
  for (int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) all.push_back(d);
  }
  return all[random.below(static_cast<int64_t>(all.size()))];
}

void set_layout(Random& random, int64_t& N, int64_t& inner, int64_t& channels, int64_t& channel_stride) {
  constexpr int64_t sizes[] = {1, 3, 8, 33, 64};
  N = sizes[random.below(5)];
  inner = random.coin() ? N : some_divisor(random, N);
  channel_stride = some_divisor(random, N);
  channels = some_divisor(random, N / channel_stride);
  if (channels == 1) channel_stride = N;
}

int some_shift(Random& random) { return random.coin() ? kNone : (random.coin() ? kAny : kAll); }

void check_sample() {
  Random random{1};
  for (int i = 0; i < 3 * 4 * 2 * 9 * 7 * 2; ++i) {
    int rest = i;
    const auto choose = [&](int n) { return std::exchange(rest, rest / n) % n; };
    Case c{};
    c.neuron = static_cast<Neuron>(choose(3));
    c.dtype = static_cast<Dtype>(choose(4));
    c.soft_reset = choose(2);
    // Constants: shared, tau, threshold, both; soft spikes: shared, both; affine: shared, both, both and soft spikes.
    const int kind = choose(9);
    c.soft_spike = kind == 4 || kind == 5 || kind == 8;
    c.affine = kind >= 6;
    c.tau = kind == 1 || kind == 3 || kind == 5 || kind >= 7;
    c.threshold = kind == 2 || kind == 3 || kind == 5 || kind >= 7;
    constexpr int64_t lengths[] = {0, 1, 4, 5, 8, 9, 17};
    c.T = lengths[choose(7)];
    set_layout(random, c.N, c.inner, c.channels, c.channel_stride);
    c.shifted = some_shift(random);
    c.optional = static_cast<Optional>(random.below(8) < 6 ? 0 : 1 + random.below(2));
    check(c);
  }
}

void check_channels() {
  Random random{3};
  for (int i = 0; i < 4 * 7 * 8; ++i) {
    ChannelCase c{};
    c.dtype = static_cast<Dtype>(i % 4);
    constexpr int64_t lengths[] = {1, 2, 4, 5, 8, 9, 17};
    c.T = lengths[i / 4 % 7];
    set_layout(random, c.N, c.inner, c.channels, c.channel_stride);
    c.shifted = some_shift(random);
    c.present = i % 3 == 0 ? 1 + static_cast<int>(random.below(7)) : 7;
    check(c);
  }
  for (const Dtype dtype : {Dtype::float32, Dtype::float64, Dtype::bfloat16, Dtype::float16}) {
    for (int shifted = kNone; shifted < 16; ++shifted) check(ChannelCase{0, dtype, 4, 64, 64, 4, 16, shifted, 7});
    check(ChannelCase{0, dtype, 2, 3 * 700, 700, 7, 100, kNone, 7});
    check(ChannelCase{0, dtype, 2, 3 * 700, 700, 7, 1, kNone, 7});
  }
  check(ChannelCase{0, Dtype::float32, 2, 131080, 131080, 1, 131080, kNone, 7});
  check(ChannelCase{0, Dtype::float32, 1, 200000, 40000, 4, 10000, kNone, 7});
}

void check_special() {
  for (const Neuron neuron : {Neuron::lif, Neuron::llif, Neuron::slif}) {
    for (const Dtype dtype : {Dtype::float32, Dtype::float64, Dtype::bfloat16, Dtype::float16}) {
      // Everything suits the widest access but one array; LIF has six that count, the others eight.
      for (int shifted = kNone; shifted < 8; ++shifted) {
        for (const bool tensors : {false, true}) {
          check({0, neuron, dtype, false, false, tensors, tensors, false, 17, 64, 64, 4, 16, shifted, Optional::all});
          check({0, neuron, dtype, false, false, tensors, tensors, true, 17, 64, 64, 4, 16, shifted, Optional::all});
        }
      }
      // Several blocks, the last one not full; several sequences.
      check({0, neuron, dtype, true, false, false, false, false, 9, 3 * 700, 700, 1, 2100, kNone, Optional::any});
      check({0, neuron, dtype, false, false, true, true, false, 2, 3 * 700, 700, 7, 100, kNone, Optional::any});
      check({0, neuron, dtype, false, false, false, false, false, 2, 0, 1, 1, 1, kNone, Optional::all});
    }
  }
  // Neurons enough for a thread to take several: 2 slabs of 2 rows, then 3 of which the last is not full.
  for (const Neuron neuron : {Neuron::lif, Neuron::slif}) {
    const Dtype dtype = Dtype::float32;
    check({0, neuron, dtype, false, false, true, true, false, 2, 131080, 131080, 1, 131080, kNone, Optional::any});
    check({0, neuron, dtype, false, false, true, true, false, 1, 200000, 40000, 4, 10000, kNone, Optional::none});
    check({0, neuron, dtype, false, false, false, true, true, 1, 200000, 40000, 4, 10000, kNone, Optional::none});
  }
}

int64_t check_division() {
  const Device& device = devices[0].forward ? devices[0] : (devices[1].forward ? devices[1] : devices[2]);
  if (!device.divide) return 0;
  std::vector<int64_t> divisors = {1, 2, 3, 5, 7, 11, 97, 641, 65537, 1000003, 2147483647, 6700417, 137438953447};
  for (int e = 2; e <= 37; ++e) {
    for (const int64_t near : {-1, 0, 1}) divisors.push_back((int64_t(1) << e) + (e == 37 && near > 0 ? 0 : near));
  }
  const int64_t end = int64_t(1) << 40;
  int64_t wrong = 0;
  Random random{2};
  for (const int64_t d : divisors) {
    for (int i = 0; i < 2000; ++i) {
      int64_t n = random.below(end) >> random.below(40);
      if (i % 4 == 1) n = n / d * d;  // where a quotient begins and ends
      if (i % 4 == 2) n = n / d * d + d - 1;
      if (i == 3) n = end - 1;
      if (n >= end || (device.divide(n, d) == n / d && device.remainder(n, d) == n % d)) continue;
      if (wrong++ == 0) std::printf("MISMATCH: %lld divided by %lld\n", (long long)n, (long long)d);
    }
  }
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what is printed before a sanitizer ends the program shall be seen
  if (argc > 1) only = std::atoi(argv[1]);
  const int64_t wrong = check_division();
  __sanitizer_set_death_callback([] {
    print_current();
    std::printf(" STOPPED\n");
  });
  check_sample();
  check_special();
  check_channels();
  std::printf("%d cases, %d mismatches, %lld wrong quotients\n", cases, mismatches, (long long)wrong);
  return cases == 0 || mismatches > 0 || wrong > 0;
}
