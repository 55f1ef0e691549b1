"""The residual model: a generator whose sequences are weighted by what discriminators know about them beyond it.

P(Y) = G(Y) · exp(β · s(Y)) / Z, where s(Y) is the mean logit of judges, discriminators that were trained on the finished generator.
A perfect judge has s = log p(Y) − log G(Y), and with β = 1 the residual model is the real distribution p (Deng et al. 2020,
"Residual Energy-Based Models for Text Generation"; Azadi et al. 2019, "Discriminator Rejection Sampling").
"""
