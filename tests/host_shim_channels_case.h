// Cases of host_shim_main.cpp: every pass around channels, and those of the super neuron, given to the CUDA kernels on
// the host and to the CPU kernels.
#pragma once

#include "host_shim_case.h"

namespace {

struct ChannelCase {
  int number;
  Dtype dtype;
  int64_t T, N, inner, channels, channel_stride;
  int shifted;
  std::vector<const TestNeuron*> members;  // of the super neuron; none: the passes around channels

  void print() const {
    std::printf("channel case %d: %s T=%lld N=%lld inner=%lld channels=%lld channel_stride=%lld shifted=%d members=%zu",
                number, kDtypes[static_cast<int>(dtype)], (long long)T, (long long)N, (long long)inner,
                (long long)channels, (long long)channel_stride, shifted, members.size());
  }
};

class ChannelRun : Arrays {
 public:
  explicit ChannelRun(const ChannelCase& c)
      : Arrays(c.number, c.shifted),
        c_(c),
        g_{c.T, c.N, c.inner, c.channels, c.channel_stride},
        all_(c.T * c.N),
        real_(compute_dtype(c.dtype)) {}

  bool passes() {
    x_ = values(all_, c_.dtype, -1.5, 2.5);
    grad_ = values(all_, c_.dtype, -1, 1);
    c_.members.empty() ? run_channels() : run_super_neuron();
    return passes_;
  }

 private:
  void print() const override { c_.print(); }

  void run_channels() {
    ChannelSumsCall moments{g_, c_.dtype, x_, nullptr}, cpu_moments = moments;
    with_sums({"sum", "squares"}, 1e-13, moments.sums, cpu_moments.sums, [&] {
      channel_device.channel_sums(moments);
      cpu_.channel_sums(cpu_moments, 0, cpu_.channel_slabs(g_));
    });
    ChannelAffineCall affine{g_, c_.dtype, grad_, x_, values(3 * c_.channels, real_, -1, 1), nullptr};
    ChannelAffineCall cpu_affine = affine;
    output("out", true, all_, c_.dtype, affine.out, cpu_affine.out);
    channel_device.channel_affine(affine);
    cpu_.channel_affine(cpu_affine, 0, cpu_.blocks(g_));
    compare();

    const int members = 1 + static_cast<int>(random_.below(kMostMembers));
    uint8_t* codes = static_cast<uint8_t*>(take_bytes(all_, 1));
    for (int64_t i = 0; i < all_; ++i) {  // many steps: always all spikes, for the counters' sake
      codes[i] = static_cast<uint8_t>(c_.T > 255 ? (1 << members) - 1 : random_.below(1 << members));
    }
    DecodeCall decode{g_, c_.dtype, members, codes, values((1 + members) * c_.channels, real_, -1, 1), nullptr};
    DecodeCall cpu_decode = decode;
    output("y", true, all_, c_.dtype, decode.y, cpu_decode.y);
    channel_device.decode(decode);
    cpu_.decode(cpu_decode, 0, cpu_.blocks(g_));
    compare();
    std::vector<const char*> names(1 + members, "sum of a neuron");
    SuperSumsCall sums{g_, c_.dtype, members, codes, grad_, nullptr}, cpu_sums = sums;
    const bool in_float = real_ == Dtype::float32;  // within a neuron's sequence
    const auto super_sums = [&] {
      channel_device.super_sums(sums);
      cpu_.super_sums(cpu_sums, 0, cpu_.channel_slabs(g_));
    };
    with_sums(names, in_float ? 1e-5 : 1e-10, sums.sums, cpu_sums.sums, super_sums, in_float ? 1e-6 * c_.T : 0);
    names.assign(members, "count");
    double *counts = nullptr, *ones = nullptr;
    with_sums(names, 0, counts, ones, [&] {
      channel_device.count(g_, members, codes, counts);
      count_codes(members, codes, ones);
    });
  }

  // [members][channels] in one slab.
  void count_codes(int members, const uint8_t* codes, double* ones) {
    for (int64_t m = 0; m < c_.N; ++m) {
      const int64_t channel = m / g_.channel_stride % g_.channels;
      for (int64_t t = 0; t < c_.T; ++t) {
        const int code = codes[(m / g_.inner * c_.T + t) * g_.inner + m % g_.inner];
        for (int k = 0; k < members; ++k) ones[k * g_.channels + channel] += code >> k & 1;
      }
    }
  }

  void run_super_neuron() {
    const bool is_double = real_ == Dtype::float64;
    const bool one_alpha = random_.coin();
    double alpha = 0.75;
    EncodeCall<NeuronInfo> encode{g_, c_.dtype, {}, x_, nullptr, nullptr};
    EncodeCall<NeuronKernels> cpu_encode{g_, c_.dtype, {}, x_, nullptr, nullptr};
    for (const TestNeuron* member : c_.members) {
      std::vector<ConstantValue> constants;
      for (const Range& range : member->ranges) constants.push_back({random_.uniform(range.low, range.high)});
      if (!one_alpha) alpha = random_.uniform(0.5, 2);
      encode.members.push_back({device.find(member->cpu->name, is_double), constants, alpha});
      cpu_encode.members.push_back({member->cpu, constants, alpha});
    }
    output_bytes("codes", all_, 1, encode.codes, cpu_encode.codes);
    std::vector<double> counts(cpu_.channel_slabs(g_) * c_.members.size() * c_.channels);
    cpu_encode.sums = counts.data();
    device.encode(encode);
    cpu_.encode(cpu_encode, 0, cpu_.channel_slabs(g_));
    compare();

    const void* table = values(3 * c_.members.size() * c_.channels, real_, -1, 1);
    SuperBackwardCall<NeuronInfo> back{g_, c_.dtype, encode.members, x_, grad_, table, cpu_encode.codes, nullptr};
    SuperBackwardCall<NeuronKernels> cpu_back{g_, c_.dtype, cpu_encode.members, x_, grad_, table, cpu_encode.codes};
    output("grad_x", true, all_, c_.dtype, back.grad_x, cpu_back.grad_x);
    device.super_backward(back, take(device.scratch_size(back) / kSizes[static_cast<int>(real_)], real_));
    cpu_.super_backward(cpu_back, 0, cpu_.super_blocks(g_));
    compare();
  }

  // Gives partial sums to both and runs a pass.
  template <class F>
  void with_sums(std::vector<const char*> names, double tolerance, double*& device, double*& cpu, F pass,
                 double floor = 0) {
    const int64_t count = names.size(), cpu_slabs = cpu_.channel_slabs(g_);
    device = static_cast<double*>(take(count * make_slices(g_).partials(), Dtype::float64));
    std::vector<double> cpu_sums(cpu_slabs * count * c_.channels);
    cpu = cpu_sums.data();
    pass();
    for (int64_t k = 0; k < count; ++k) {
      compare_sum(names[k], k, tolerance, g_, device, k, cpu, cpu_slabs, count, floor);
    }
  }

  ChannelCase c_;
  Geometry g_;
  int64_t all_;
  Dtype real_;
  const void *x_ = nullptr, *grad_ = nullptr;
  const CpuKernels& cpu_ = generic::kernels;
};

}  // namespace
