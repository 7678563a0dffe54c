"""The entries of one scale, as a table of vectors: learned one by one (VQ), or laid out as a lattice (FSQ, BSQ).

Whoever uses a codebook sees the table, whatever its kind: a code is the number of the nearest entry.
"""

import itertools
import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.attention import full_precision
from worldmodel.settings import QuantizerSettings

# Distance between the levels, in standard deviations, that loses least of a normal distribution, by the number of
# levels (Max 1960, "Quantizing for minimum distortion", table II).
BEST_STEPS = {2: 1.596, 3: 1.224, 4: 0.9957, 5: 0.8430, 6: 0.7334, 7: 0.6508, 8: 0.5860}
# Latents whose distances to all entries are worked out at a time: the table of distances stays in a CPU's cache.
ROWS = 1024


class Codebook(nn.Module, ABC):
    """The table of one scale, and how often each of its entries is used."""

    vectors: Tensor
    counts: Tensor
    uses: Tensor

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__()
        self.decay, self.restart_below = settings.decay, settings.restart_below
        self.register_buffer("vectors", torch.randn(settings.vocabulary, settings.dim) * 0.1)
        self.register_buffer("counts", torch.zeros(settings.vocabulary))
        # Apart from the counts, into which a restart puts a stake for every entry that nobody uses.
        self.register_buffer("uses", torch.zeros(settings.vocabulary), persistent=False)

    @abstractmethod
    def update(self, latents: Float[Tensor, "entry dim"], codes: Int[Tensor, " entry"]) -> None:
        """Follow the latents of one training step, over all ranks; `codes` are their nearest entries."""

    def nearest(
        self, latents: Float[Tensor, "entry dim"], bit_prices: Float[Tensor, " entry"] | None = None
    ) -> Int[Tensor, " entry"]:
        """Number of the entry with the smallest squared distance to every latent, in fp32.

        With a price of a bit for every latent, the distance and the price of the entry's bits together are least; the
        bits are those of its share of late (Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector quantization").
        """
        latents, table = latents.float(), self.vectors.T
        with full_precision(latents.device):
            # A latent's own length is the same for all entries.
            half_norms = -0.5 * self.vectors.square().sum(1)
            if bit_prices is not None:
                counts = self.counts.clamp(min=self.restart_below)
                latents = torch.cat([latents, bit_prices.float()[:, None]], 1)
                table = torch.cat([table, 0.5 * (counts / counts.sum()).log2()[None]])
            rows = latents.split(ROWS if latents.device.type == "cpu" else 64 * ROWS)
            return torch.cat([torch.addmm(half_norms, part, table).argmax(1) for part in rows])

    def dead(self) -> Bool[Tensor, " code"]:
        """Entries that are next to never used."""
        return self.counts <= 2 * self.restart_below

    def perplexity(self) -> Float[Tensor, ""]:
        """How many entries in even use would be as rich as those in use lately; NaN where none was used yet."""
        share = self.uses / self.uses.sum()
        return torch.exp(-torch.special.xlogy(share, share).sum())

    def _follow(self, counts: Tensor) -> None:
        """Moving averages of how often each entry is used in a step."""
        self.counts.lerp_(counts, 1 - self.decay)
        self.uses.lerp_(counts, 1 - self.decay)

    def _count(self, codes: Tensor) -> Tensor:
        return torch.zeros_like(self.counts).index_add_(0, codes, torch.ones_like(codes, dtype=torch.float32))


class LearnedCodebook(Codebook):
    """VQ: every entry is the moving average of the latents it stands for (van den Oord et al. 2017, appendix A.1).

    Entries that nobody uses are restarted from the batch (Dhariwal et al. 2020, "Jukebox").
    """

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__(settings)
        self.sums: Tensor
        self.register_buffer("sums", torch.zeros(settings.vocabulary, settings.dim))

    @torch.no_grad()
    def update(self, latents: Float[Tensor, "entry dim"], codes: Int[Tensor, " entry"]) -> None:
        """One step of the moving averages, and the restart of unused entries."""
        counts = self._count(codes)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, latents.float())
        pool = latents.float()[torch.randint(len(latents), (len(self.vectors),), device=latents.device)]
        sum_over_ranks(counts, sums)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(pool, 0)
        self._follow(counts)
        self.sums.lerp_(sums, 1 - self.decay)
        # Whoever this very batch points at stays, however rarely it is used.
        unused = ((self.counts < self.restart_below) & (counts == 0))[:, None]
        self.sums.copy_(torch.where(unused, pool * self.restart_below * 2, self.sums))
        self.counts.copy_(torch.where(unused[:, 0], torch.full_like(self.counts, self.restart_below * 2), self.counts))
        self.vectors.copy_(self.sums / self.counts[:, None])


class Lattice(Codebook):
    """FSQ (Mentzer et al. 2023) and BSQ (Zhao et al. 2024; without its sphere, LFQ: Yu et al. 2023).

    An entry is one choice among a few evenly spaced levels for each of a few axes; with two levels it is a row of
    signs. Where the papers bound the latents, here the lattice follows them: the axes are those in which this scale's
    residuals vary most, and the steps on an axis are measured in its standard deviation, so that every scale has its
    own size. Nothing is learned entry by entry, so no entry can fall out of use by itself.
    """

    def __init__(self, settings: QuantizerSettings, levels: tuple[int, ...]) -> None:
        super().__init__(settings)
        dim = settings.dim
        if len(levels) > dim:
            raise ValueError(
                f"{settings.vocabulary} codes of kind {settings.kind} need {len(levels)} axes, and latents have {dim}: "
                f"set quantizer.dim to at least {len(levels)}, or lower quantizer.vocabulary"
            )
        self.points: Tensor
        self.sums: Tensor
        self.products: Tensor
        self.axes: Tensor
        steps = [[BEST_STEPS[num] * (level - (num - 1) / 2) for level in range(num)] for num in levels]
        self.register_buffer("points", torch.tensor(list(itertools.product(*steps))), persistent=False)
        self.register_buffer("sums", torch.zeros(dim))
        self.register_buffer("products", torch.zeros(dim, dim))
        self.register_buffer("axes", torch.eye(dim)[:, : len(levels)].contiguous())
        self.vectors.copy_(0.1 * self.points @ self.axes.T)

    @torch.no_grad()
    def update(self, latents: Float[Tensor, "entry dim"], codes: Int[Tensor, " entry"]) -> None:
        """Moving averages of the first two moments, and one step of orthogonal iteration towards the main axes."""
        latents = latents.float()
        with full_precision(latents.device):
            counts, sums, products = self._count(codes), latents.sum(0), latents.T @ latents
            sum_over_ranks(counts, sums, products)
            self._follow(counts)
            self.sums.lerp_(sums, 1 - self.decay)
            self.products.lerp_(products, 1 - self.decay)
            mean = self.sums / self.counts.sum()
            covariance = self.products / self.counts.sum() - mean[:, None] * mean
            # The small multiple of one keeps axes in which nothing varies apart.
            orthogonal, triangular = torch.linalg.qr(covariance @ self.axes + 1e-6 * self.axes)
            self.axes.copy_(orthogonal * torch.where(triangular.diagonal() < 0, -1.0, 1.0))
            deviations = ((covariance @ self.axes) * self.axes).sum(0).clamp(min=1e-12).sqrt()
            self.vectors.copy_(mean + (self.points * deviations) @ self.axes.T)


def sum_over_ranks(*values: Tensor) -> None:
    """Adds up each of the tensors over the processes, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for value in values:
            torch.distributed.all_reduce(value)


def make_codebook(settings: QuantizerSettings) -> Codebook:
    """The untrained codebook of one scale.

    Raises:
        ValueError: a lattice cannot have that many entries, or needs more axes than a latent has.
    """
    if settings.kind == "vq":
        return LearnedCodebook(settings)
    return Lattice(settings, levels_of(settings.vocabulary, settings.kind))


def levels_of(vocabulary: int, kind: str) -> tuple[int, ...]:
    """Levels of each axis, whose product is the vocabulary: twos (bsq), or as few as can be of 3 to 8 (fsq).

    Raises:
        ValueError: there are none.
    """
    if kind == "bsq":
        num_bits = max(vocabulary, 1).bit_length() - 1
        if vocabulary != 2**num_bits or num_bits == 0:
            raise ValueError(f"quantizer.vocabulary={vocabulary} with kind bsq: it must be a power of two")
        return (2,) * num_bits
    for num_axes in range(1, 1 + int(math.log(max(vocabulary, 2), 3))):
        choices = itertools.combinations_with_replacement(range(8, 2, -1), num_axes)
        fitting = [levels for levels in choices if math.prod(levels) == vocabulary]
        if fitting:
            return max(fitting, key=min)
    raise ValueError(
        f"quantizer.vocabulary={vocabulary} with kind fsq: it must be a product of numbers from 3 to 8, "
        "as 240 = 8 x 6 x 5, 512 = 8 x 8 x 8 and 1000 = 8 x 5 x 5 x 5 are"
    )
