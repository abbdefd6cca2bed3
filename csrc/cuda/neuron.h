// From printed functions to a neuron's kernels.
#pragma once

#include "backward.h"

namespace stdano {
namespace STDANO_ISA {

// The neurons of a super neuron as one, with the states of all, for kernels that read x once. Others run one after the
// other, by the kernels that those have anyway.
template <class... Parts>
struct Together {
  static constexpr int states = (Parts::S::states + ...), spikes = (Parts::S::spikes + ...);
  static constexpr int constants = (Parts::C::constants + ...);
  static constexpr bool is_long = true;

  // A bit for each.
  template <class real>
  static STDANO_INLINE int step(real x, const real* before, const real* derived, real alpha, real* after, real* u) {
    int codes = 0, bit = 0;
    ((codes |= code_of(Parts::S::step(x, before, derived, alpha, after, u)) << bit++, before += Parts::S::states,
      derived += Parts::S::derived, after += Parts::S::states, u += Parts::S::spikes),
     ...);
    return codes;
  }

  template <class real>
  static void derive(const real* constants, real* derived, real* rest) {
    ((Parts::C::derive(constants, derived, rest), constants += Parts::C::constants, derived += Parts::S::derived,
      rest += Parts::S::states),
     ...);
  }
};

template <class scalar, class S, class... Parts>
FastKernels make_fast() {
  constexpr int width = S::is_long || S::states > 1 ? 4 : 16 / sizeof(scalar);  // what registers have room for
  return {forward_kernel<S, void, scalar, float, width>, backward_kernel<void, scalar, float, 4, Parts...>,
          backward_kernel<void, scalar, float, 8, Parts...>, width};
}

template <class S, class C, class... Parts>
DeviceNeuron make(const char* name, int surrogate, GeneralKernels<float> general, GeneralKernels<double> in_double) {
  return {{name, S::states, C::constants}, general, in_double, surrogate, S::is_long, make_fast<float, S, Parts...>(),
          make_fast<Half, S, Parts...>()};
}

template <class real, class scalar, class P>
GeneralKernels<real> make_general() {
  return {P::C::template derive<real>, forward_kernel<typename P::S, typename P::C, scalar, real, 1>,
          backward_kernel<typename P::C, scalar, real, 0, P>};
}

// `doubles`: also the kernels in double, which serve checks.
template <class P, bool doubles>
DeviceNeuron make_neuron(const char* name, int surrogate) {
  GeneralKernels<double> in_double{};
  if constexpr (doubles) in_double = make_general<double, double, P>();
  return make<typename P::S, typename P::C, P>(name, surrogate, make_general<float, AnyFloat, P>(), in_double);
}

// `name`: those of the neurons, each with a + in front. Backward there are none but the fast kernels.
template <class... Parts>
DeviceNeuron make_together(const char* name, int surrogate) {
  using All = Together<Parts...>;
  return make<All, All, Parts...>(
      name, surrogate, {All::template derive<float>, forward_kernel<All, void, AnyFloat, float, 1>, nullptr}, {});
}

}  // namespace STDANO_ISA
}  // namespace stdano
