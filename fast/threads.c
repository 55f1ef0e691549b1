/* One function for several threads: it is called with the number of each share of its work. */
typedef void (*work)(void *given, int64_t share, int64_t shares);
typedef struct {
    work function;
    void *given;
    int64_t shares, next;
} shared_work;

/* `GOMP_parallel` of the OpenMP library that torch has loaded: it calls a function on several threads, which wait for work from torch
anyway. Null where that library has none; then one thread does all. */
void (*parallel)(void (*)(void *), void *, unsigned, unsigned) = 0;

static void take_shares(void *given) {
    shared_work *all = given;
    for (int64_t share; (share = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->shares;)
        all->function(all->given, share, all->shares);
}

static void share_out(work function, void *given, int64_t shares) {
    shared_work all = {function, given, shares, 0};
    if (parallel && shares > 1) parallel(take_shares, &all, shares, 0);
    else take_shares(&all);
}
