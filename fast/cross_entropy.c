/* The cross-entropy of an output layer, and its gradient for the logits, from one pass over the columns. No row depends on another. */

/* Rows of hidden states and their targets. `losses` receives -log of the targets' probabilities, in nats; `gradients`, `apart` numbers
a row, the gradients of the losses for the logits, each divided by the row's number in `factors`. There must be as many rows of
gradients as the next multiple of ROWS. The layer's columns are in the order of the tokens. */
typedef struct {
    const layer *output;
    const float *rows;
    const int64_t *targets;
    double *losses;
    float *gradients, *factors, *space; /* of `space` each share has CHUNK x (hidden + groups) numbers */
    int64_t stride, count, apart;
} entropy;

#define LARGE 0x1p40 /* sums above it, or below its inverse, are brought to between 1 and 2, lest a product leave float32's range */

/* The loss and the gradient of one row, whose weights in units of 2^shift, with the sum `total`, stand where the gradient will. */
static void finish_row(const entropy *e, int64_t r, float shift, double total) {
    const layer *w = e->output;
    const int64_t target = e->targets[r];
    const float *row = e->rows + r * e->stride, *column = w->panels + target / PANEL * PANEL * (w->hidden + 1) + target % PANEL;
    float *gradient = e->gradients + r * e->apart;
    double logit = column[0];
    for (int64_t k = 0; k < w->hidden; k++) logit += (double)row[k] * column[(k + 1) * PANEL];
    e->losses[r] = (log2(total) + shift - logit) * M_LN2 + (w->bound - w->bound); /* NaN where `bound` is not finite */
    if (isnormal(total) && !(total < LARGE && total > 1 / LARGE)) {
        const float scale = ldexpf(1, -ilogb(total));
        for (int64_t v = 0; v < w->vocab; v++) gradient[v] *= scale;
        total *= scale;
    }
    gradient[target] -= total;
    e->factors[r] = 1 / total;
}

static void entropy_share(void *given, int64_t share, int64_t shares) {
    const entropy *e = given;
    const layer *w = e->output;
    const int64_t size = (e->count + shares * ROWS - 1) / (shares * ROWS) * ROWS; /* so that no share writes surplus rows of another */
    const int64_t end = size * (share + 1) < e->count ? size * (share + 1) : e->count;
    for (int64_t first = size * share; first < end; first += CHUNK) {
        const int64_t rows = end - first < CHUNK ? end - first : CHUNK;
        float shifts[CHUNK];
        double totals[CHUNK];
        chunk_sums(w, e->rows + first * e->stride, e->stride, rows, shifts, totals, e->gradients + first * e->apart, e->apart,
                   e->space + share * CHUNK * (w->hidden + w->groups));
        for (int64_t r = 0; r < rows; r++) finish_row(e, first + r, shifts[r], totals[r]);
    }
}

void cross_entropy(entropy *e, int64_t threads) { share_out(entropy_share, e, threads); }
