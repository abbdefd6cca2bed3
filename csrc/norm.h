// What becomes of the sums of a channel: BatchNorm's numbers for the passes that follow, in double. Each of these is run
// behind the sums by whoever has taken them, once a channel; `sum` are the sums, in their order.
#pragma once

#include <cmath>

#include "call.h"

namespace stdano {

// The statistics of a channel's values, or of a neuron's spikes in a channel.
struct Moments {
  double mean, variance;

  STDANO_INLINE double inverse(double eps) const { return 1 / sqrt(variance + eps); }

  // Moves running statistics as torch.nn.BatchNorm does: the variance is the unbiased.
  template <class real>
  STDANO_INLINE void move(real* running_mean, real* running_var, double momentum, double count) const {
    const double fewer = count > 2 ? count - 1 : 1;
    const real weight = static_cast<real>(momentum);
    *running_mean = towards(*running_mean, static_cast<real>(mean), weight);
    *running_var = towards(*running_var, static_cast<real>(variance * (count / fewer)), weight);
  }

 private:
  // torch.lerp, to the bit.
  template <class real>
  static STDANO_INLINE real towards(real from, real to, real weight) {
    const bool near = weight < real(0.5) && weight > real(-0.5);
    return std::fma(near ? weight : weight - 1, to - from, near ? from : to);
  }
};

template <class real>
struct NormForward {
  static constexpr int most_sums = kChannelSums;
  NormForwardCall call;
  STDANO_INLINE int sums() const { return kChannelSums; }

  STDANO_INLINE void operator()(int64_t c, const double* sum) const {
    const int64_t channels = call.channels;
    real *mean = static_cast<real*>(call.running_mean), *var = static_cast<real*>(call.running_var);
    Moments m;
    if (call.training) {
      m.mean = sum[0] / call.count;
      m.variance = sum[1] / call.count - m.mean * m.mean;
      m.variance = m.variance < 0 ? 0 : m.variance;
      if (mean) m.move(mean + c, var + c, call.momentum, call.count * call.copies);
    } else {
      m = {static_cast<double>(mean[c]), static_cast<double>(var[c])};
    }
    const double inverse = m.inverse(call.eps);
    const double scale = call.weight ? static_cast<const real*>(call.weight)[c] * inverse : inverse;
    // What the mean loses as a float goes into the shift: a large mean then costs no accuracy.
    const real centre = static_cast<real>(m.mean);
    const double shift = scale * (centre - m.mean) + (call.bias ? static_cast<const real*>(call.bias)[c] : 0.0);
    real* affine = static_cast<real*>(call.affine) + c;
    affine[0] = centre;
    affine[channels] = static_cast<real>(scale);
    affine[2 * channels] = static_cast<real>(shift);
    double* moments = call.moments + c;
    moments[0] = m.mean, moments[channels] = m.variance;
    moments[2 * channels] = inverse, moments[3 * channels] = scale;
  }
};

template <class real>
struct NormBackward {
  static constexpr int most_sums = 2;
  NormBackwardCall call;
  STDANO_INLINE int sums() const { return 2; }

  // The sums are the gradients of shift and of scale, which autograd would pass on in the dtype of the table.
  STDANO_INLINE void operator()(int64_t c, const double* sum) const {
    const int64_t channels = call.channels;
    const double* moments = call.moments + c;
    const double mean = moments[0], inverse = moments[2 * channels], scale = moments[3 * channels];
    const real centre = static_cast<const real*>(call.affine)[c];
    const double shifted = centre - mean;
    const double of_shift = static_cast<real>(sum[0]);
    const double of_scale = static_cast<real>(sum[1]) + shifted * of_shift;  // from centre to mean
    const double slope = of_scale / -call.count * scale * inverse * inverse;
    const double offset = of_shift / -call.count * scale + slope * shifted;
    real* table = static_cast<real*>(call.table) + c;
    table[0] = centre;
    table[channels] = static_cast<real>(slope);
    table[2 * channels] = static_cast<real>(offset);
    static_cast<real*>(call.grad_weight)[c] = static_cast<real>(of_scale * inverse);
    static_cast<real*>(call.grad_bias)[c] = static_cast<real>(of_shift);
  }
};

template <class real>
struct MixtureForward {
  static constexpr int most_sums = kMostMembers;
  MixtureForwardCall call;
  STDANO_INLINE int sums() const { return call.members; }

  // The sums count spikes.
  STDANO_INLINE void operator()(int64_t c, const double* sum) const {
    const int64_t channels = call.channels, numbers = call.members * channels;
    real *mean = static_cast<real*>(call.running_mean), *var = static_cast<real*>(call.running_var);
    real* table = static_cast<real*>(call.table) + c;
    double offset = 0;
    for (int64_t k = 0; k < call.members; ++k) {
      const int64_t at = k * channels + c;
      Moments m;
      if (call.training) {
        m.mean = sum[k] / call.count;
        m.variance = m.mean * (1 - m.mean);
        if (mean) m.move(mean + at, var + at, call.momentum, call.count);
      } else {
        m = {static_cast<double>(mean[at]), static_cast<double>(var[at])};
      }
      const double inverse = m.inverse(call.eps), scale = static_cast<const real*>(call.weights)[k] * inverse;
      offset += scale * m.mean;
      table[(1 + k) * channels] = static_cast<real>(scale);
      double* moments = call.moments + at;
      moments[0] = m.mean, moments[numbers] = m.variance;
      moments[2 * numbers] = inverse, moments[3 * numbers] = scale;
    }
    table[0] = static_cast<real>(-offset);
  }
};

template <class real>
struct MixtureBackward {
  static constexpr int most_sums = 1 + kMostMembers;
  MixtureBackwardCall call;
  STDANO_INLINE int sums() const { return 1 + call.members; }

  // The sums are of all of the gradient, and of it where each neuron fired.
  STDANO_INLINE void operator()(int64_t c, const double* sum) const {
    const int64_t channels = call.channels, numbers = call.members * channels;
    const double of_y = sum[0] / -call.count;
    for (int64_t k = 0; k < call.members; ++k) {
      const double* moments = call.moments + k * channels + c;
      const double mean = moments[0], inverse = moments[2 * numbers], scale = moments[3 * numbers];
      const double of_spikes = (sum[1 + k] - mean * sum[0]) * inverse;  // times the normalised spikes
      call.of_weights[k * channels + c] = of_spikes;
      const double slope = of_spikes / -call.count * inverse;
      const double silent = call.training ? scale * (of_y - slope * mean) : 0;
      const double fired = call.training ? silent + scale * slope : 0;
      real* table = static_cast<real*>(call.table) + 3 * k * channels + c;
      table[0] = static_cast<real>(scale);
      table[channels] = static_cast<real>(silent);
      table[2 * channels] = static_cast<real>(fired);
    }
  }
};

// Runs one of these for channels [first, end) by sums [...][channels].
template <class Finish>
STDANO_INLINE void finish_channels(const Finish& finish, const double* sums, int64_t first, int64_t end) {
  for (int64_t c = first; c < end; ++c) {
    double own[Finish::most_sums];
    for (int k = 0; k < finish.sums(); ++k) own[k] = sums[k * finish.call.channels + c];
    finish(c, own);
  }
}

}  // namespace stdano
