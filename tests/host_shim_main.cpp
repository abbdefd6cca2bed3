// Runs calls through the CUDA kernels (on the host, see host_shim.h) and through the CPU kernels, and compares every
// output in all bits. Prints a line for each mismatch and a final count. With a number as argument only the case of
// that number runs, with the word first all up to the first mismatch.
#define STDANO_ISA host_program
#include <sanitizer/common_interface_defs.h>

#include <functional>
#include <string>
#include <utility>

#include "host_shim_channels_case.h"

Device device;
ChannelDevice channel_device;

namespace {

std::function<void()> print_current = [] {};
bool until_first = false;
int only = -1, cases = 0, mismatches = 0, number = 0;

// {constants' ranges} of each neuron, in the order of the CPU's table; written by the test.
const std::vector<std::vector<Range>> kRanges = {
#include "ranges.inc"
};

std::vector<TestNeuron> test_neurons() {
  std::vector<TestNeuron> out;
  for (int i = 0; i < generic::kernels.neuron_count; ++i) out.push_back({&generic::kernels.neurons[i], kRanges[i]});
  return out;
}
const std::vector<TestNeuron> neurons = test_neurons();

// The numbers of those that have kernels together.
const std::vector<int> kTogether = {
#include "together.inc"
};

bool is_known(const TestNeuron& neuron, Dtype dtype) {
  return device.find && device.find(neuron.cpu->name, dtype == Dtype::float64);
}

template <class Run, class Case>
void run(Case& c, bool is_there) {
  c.number = number++;
  if (!is_there || (only >= 0 && c.number != only)) return;
  print_current = [c] { c.print(); };
  ++cases;
  if (Run(c).passes()) return;
  ++mismatches;
  std::printf("\n");
  if (until_first) std::exit(1);
}

void check(Case c) { run<Run>(c, is_known(*c.neuron, c.dtype)); }

void check(ChannelCase c) {
  bool is_there = !c.members.empty() || channel_device.decode;
  for (const TestNeuron* member : c.members) is_there = is_there && is_known(*member, c.dtype);
  run<ChannelRun>(c, is_there);
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

constexpr Dtype kAllDtypes[] = {Dtype::float32, Dtype::float64, Dtype::bfloat16, Dtype::float16};
constexpr int64_t kLengths[] = {0, 1, 3, 4, 8, 12, 16, 17};

void check_sample() {
  Random random{1};
  for (int i = 0; i < 4 * 5 * 8 * 2; ++i) {
    for (const TestNeuron& neuron : neurons) {
      int rest = i;
      const auto choose = [&](int n) { return std::exchange(rest, rest / n) % n; };
      Case c{};
      c.neuron = &neuron;
      c.dtype = kAllDtypes[choose(4)];
      const int kind = choose(5);  // numbers, a number for each channel or neuron, some of each; with or without a map
      c.constants = kind < 2 ? Constants::numbers : static_cast<Constants>(kind - 1);
      c.T = kLengths[choose(8)];
      c.affine = kind == 1 || (kind > 1 && random.below(3) == 0);
      set_layout(random, c.N, c.inner, c.channels, c.channel_stride);
      c.shifted = some_shift(random);
      c.optional = static_cast<Optional>(random.below(4));
      check(c);
    }
  }
}

void check_channels() {
  Random random{3};
  const auto members = [&](int64_t count) {
    std::vector<const TestNeuron*> out;
    for (int64_t k = 0; k < count; ++k) out.push_back(&neurons[random.below(neurons.size())]);
    return out;
  };
  for (int i = 0; i < 4 * 7 * 8; ++i) {
    ChannelCase c{};
    c.dtype = kAllDtypes[i % 4];
    c.T = kLengths[1 + i / 4 % 7];
    set_layout(random, c.N, c.inner, c.channels, c.channel_stride);
    c.shifted = some_shift(random);
    check(c);
    c.members = members(1 + random.below(kMostMembers));
    check(c);
    c.members = {&neurons[0], &neurons[0]};  // small builds have no other
    check(c);
    c.members.clear();
    for (int k : kTogether) c.members.push_back(&neurons[k]);
    check(c);
  }
  for (const Dtype dtype : kAllDtypes) {
    for (int shifted = kNone; shifted < 10; ++shifted) check(ChannelCase{0, dtype, 4, 64, 64, 4, 16, shifted});
    check(ChannelCase{0, dtype, 2, 3 * 700, 700, 7, 100, kNone});
    check(ChannelCase{0, dtype, 2, 3 * 700, 700, 7, 1, kNone});
  }
  check(ChannelCase{0, Dtype::float32, 300, 8, 8, 2, 4, kNone});
  check(ChannelCase{0, Dtype::float32, 2, 131080, 131080, 1, 131080, kNone});
  check(ChannelCase{0, Dtype::float32, 1, 200000, 40000, 4, 10000, kNone});
  check(ChannelCase{0, Dtype::float32, 1, 280000, 140000, 2, 70000, kNone});
}

void check_special() {
  for (const TestNeuron& neuron : neurons) {
    for (const Dtype dtype : kAllDtypes) {
      // Everything suits the widest access but one array.
      for (int shifted = kNone; shifted < 10; ++shifted) {
        check({0, &neuron, dtype, Constants::numbers, false, 16, 64, 64, 4, 16, shifted, Optional::states});
        check({0, &neuron, dtype, Constants::numbers, true, 4, 64, 64, 4, 16, shifted, Optional::none});
      }
      // Several blocks, the last one not full; several sequences.
      check({0, &neuron, dtype, Constants::numbers, false, 8, 3 * 704, 704, 1, 2112, kNone, Optional::any});
      check({0, &neuron, dtype, Constants::channels, false, 2, 3 * 700, 700, 7, 100, kNone, Optional::any});
      check({0, &neuron, dtype, Constants::numbers, false, 2, 0, 1, 1, 1, kNone, Optional::all});
    }
  }
  // Neurons enough for a thread to take several: of one channel, in 3 slabs of which the last is not full, and both.
  const Dtype dtype = Dtype::float32;
  check({0, &neurons[0], dtype, Constants::channels, false, 2, 131080, 131080, 1, 131080, kNone, Optional::any});
  check({0, &neurons[0], dtype, Constants::any, true, 1, 200000, 40000, 4, 10000, kNone, Optional::none});
  check({0, &neurons[0], dtype, Constants::numbers, true, 4, 200000, 40000, 4, 10000, kNone, Optional::none});
  check({0, &neurons[0], dtype, Constants::any, true, 1, 280000, 140000, 2, 70000, kNone, Optional::none});
}

int64_t check_division() {
  if (!device.divide) return 0;
  std::vector<int64_t> divisors = {1, 2, 3, 5, 7, 11, 97, 641, 65537, 1000003, 2147483647, 6700417, 137438953447};
  for (int e = 2; e <= 37; ++e) {
    for (const int64_t near : {-1, 0, 1}) divisors.push_back((int64_t(1) << e) + (e == 37 && near > 0 ? 0 : near));
  }
  int64_t wrong = 0;
  Random random{2};
  for (const int64_t d : divisors) {
    for (int i = 0; i < 4000; ++i) {
      const bool narrow = i % 2 == 1;
      if (narrow && d >> 31 != 0) continue;
      const int64_t end = int64_t(1) << (narrow ? 31 : 40);
      int64_t n = random.below(end) >> random.below(narrow ? 31 : 40);
      if (i % 8 / 2 == 1) n = n / d * d;  // where a quotient begins and ends
      if (i % 8 / 2 == 2) n = n / d * d + d - 1;
      if (i < 4) n = end - 1;
      if (n >= end || (narrow ? device.divide_in_32_bits : device.divide)(n, d) == n / d) continue;
      if (wrong++ == 0) std::printf("MISMATCH: %lld divided by %lld\n", (long long)n, (long long)d);
    }
  }
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what is printed before a sanitizer ends the program shall be seen
  until_first = argc > 1 && argv[1] == std::string("first");
  if (argc > 1 && !until_first) only = std::atoi(argv[1]);
  const int64_t wrong = check_division();
  if (until_first && wrong > 0) return 1;
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
