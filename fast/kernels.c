/* All that is compiled, as one file. */
#include "draw.c"
#include "lstm.c"
#include "convolution.c"
