// One case of host_shim_main.cpp: every pass of the super neuron and of channels, given to the CUDA kernels on the host
// and to the CPU kernels.
#pragma once

#include "host_shim_arrays.h"

namespace {

struct ChannelCase {
  int number;
  Dtype dtype;
  int64_t T, N, inner, channels, channel_stride;
  int shifted, present;

  void print() const {
    std::printf("channel case %d: %s T=%lld N=%lld inner=%lld channels=%lld channel_stride=%lld shifted=%d present=%d",
                number, kDtypes[static_cast<int>(dtype)], (long long)T, (long long)N, (long long)inner,
                (long long)channels, (long long)channel_stride, shifted, present);
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
    channel_device.slices(g_, &columns_, &slabs_);
    const void* x = values(all_, c_.dtype, -1.5, 2.5);
    const void* grad = values(all_, c_.dtype, -1, 1);
    const SuperNeurons neurons = super_neurons();

    EncodeCall encode{g_, neurons, x, nullptr, nullptr}, cpu_encode = encode;
    output_bytes("codes", all_, 1, encode.codes, cpu_encode.codes);
    with_sums(encode, cpu_encode, &ChannelDevice::encode, &Kernels::encode, {"lif", "llif", "slif"}, 0);
    const uint8_t* codes = cpu_encode.codes;

    DecodeCall decode{g_, c_.dtype, shifted(codes), values(kDecodeRows * c_.channels, real_, -1, 1), nullptr};
    DecodeCall cpu_decode = decode;
    output("y", true, all_, c_.dtype, decode.y, cpu_decode.y);
    channel_device.decode(decode);
    cpu_.decode(cpu_decode, 0, cpu_.blocks(g_));
    compare();

    SuperSumsCall sums{g_, c_.dtype, codes, grad, nullptr}, cpu_sums = sums;
    with_sums(sums, cpu_sums, &ChannelDevice::super_sums, &Kernels::super_sums, {"all", "lif", "llif", "slif"},
              real_ == Dtype::float64 ? 1e-10 : 1e-5);

    SuperBackwardCall back{g_, neurons, x, grad, values(kSuperBackwardRows * c_.channels, real_, -1, 1), codes,
                           nullptr};
    SuperBackwardCall cpu_back = back;
    output("grad_x", true, all_, c_.dtype, back.grad_x, cpu_back.grad_x);
    channel_device.super_backward(back);
    cpu_.super_backward(cpu_back, 0, cpu_.super_blocks(g_));
    compare();

    ChannelSumsCall moments{g_, c_.dtype, x, nullptr}, cpu_moments = moments;
    with_sums(moments, cpu_moments, &ChannelDevice::channel_sums, &Kernels::channel_sums, {"sum", "squares"}, 1e-13);

    ChannelAffineCall affine{g_, c_.dtype, grad, x, values(3 * c_.channels, real_, -1, 1), nullptr};
    ChannelAffineCall cpu_affine = affine;
    output("out", true, all_, c_.dtype, affine.out, cpu_affine.out);
    channel_device.channel_affine(affine);
    cpu_.channel_affine(cpu_affine, 0, cpu_.blocks(g_));
    compare();
    return passes_;
  }

 private:
  void print() const override { c_.print(); }

  SuperNeurons super_neurons() {
    SuperNeurons out{c_.present, {}};
    Options o{};
    o.dtype = c_.dtype;
    o.linear_decay = random_.coin();
    o.decay_input = random_.coin();
    o.detach_reset = random_.below(4) == 0;
    o.detach_adapt = random_.below(4) == 0;
    o.surrogate = random_.below(surrogate_count);
    o.tau_min = 1.25;
    o.alpha = random_.coin() ? 2 : 0.75;
    o.tau = 2;
    o.threshold = random_.coin() ? 1 : 0.7;
    const bool soft = random_.coin(), slif_soft = random_.coin();
    for (const Neuron neuron : {Neuron::lif, Neuron::llif, Neuron::slif}) {
      o.neuron = neuron;
      o.soft_reset = neuron == Neuron::slif ? slif_soft : soft;
      o.v_reset = o.soft_reset ? 0 : (neuron == Neuron::slif ? 0.125 : -0.25);
      o.rate = neuron == Neuron::lif ? 0 : neuron == Neuron::llif ? 0.4 : 0.6;
      out.o[static_cast<int>(neuron)] = o;
    }
    return out;
  }

  const uint8_t* shifted(const uint8_t* codes) {
    void* to = take_bytes(all_, 1);
    std::memcpy(to, codes, all_);
    return static_cast<const uint8_t*>(to);
  }

  template <class Call>
  void with_sums(Call& device, Call& cpu, void (*ChannelDevice::*on_device)(const Call&),
                 void (*Kernels::*on_cpu)(const Call&, int64_t, int64_t), std::vector<const char*> names,
                 double tolerance) {
    const int64_t count = names.size(), cpu_slabs = cpu_.channel_slabs(g_);
    device.sums = static_cast<double*>(take(count * slabs_ * columns_, Dtype::float64));
    std::vector<double> cpu_sums(cpu_slabs * count * c_.channels);
    cpu.sums = cpu_sums.data();
    (channel_device.*on_device)(device);
    (cpu_.*on_cpu)(cpu, 0, cpu_slabs);
    compare();
    for (int k = 0; k < count; ++k) {
      compare_sum(names[k], k, tolerance, g_, device.sums, slabs_, columns_, cpu.sums, cpu_slabs, count);
    }
  }

  ChannelCase c_;
  Geometry g_;
  int64_t all_;
  Dtype real_;
  int64_t columns_ = 1, slabs_ = 0;
  const Kernels& cpu_ = generic::kernels;
};

}  // namespace
