/* Stand-in for libcuda.so.1: resolves the names that torch links to, and offers no function. */

int cuInit(unsigned flags) { return 0; }

int cuDriverGetVersion(int *version) {
  *version = 13000;
  return 0;
}

int cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, void *status) {
  *function = 0;
  return 500; /* not found */
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  *flags = 0;
  *active = 1;
  return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = (void *)8;
  return 0;
}

int cuCtxGetCurrent(void **context) {
  *context = (void *)8;
  return 0;
}

int cuCtxSetCurrent(void *context) { return 0; }

int cuGetErrorString(int error, const char **text) {
  *text = "gpusim: no driver function";
  return 0;
}

int cuPointerGetAttribute(void *data, int attribute, void *pointer) { return 1; }
