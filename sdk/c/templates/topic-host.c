// As osl-host.c, for components that use messages beyond the core's and get publications: the source of
// topic-host.wasm, the template for components that may use all of both.
#define TOPIC_HOST
#include "osl-host.c"
