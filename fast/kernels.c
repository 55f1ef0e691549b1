/* All that is compiled, as one file. */
#include "draw.c"
#include "lstm.c"
#include "threads.c"
#include "layout.c"
#include "convolution.c"
#include "cross_entropy.c"
#include "lstm_gradients.c"
