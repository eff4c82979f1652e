"""The dense CRF loss and its filters, slow and obvious, and images to try them on."""

import numpy as np
import torch


def tissue(batch=2, height=24, width=28, dtype=torch.float64, seed=0):
    """Images of two smooth stains, a little noisy, and logits of two classes."""
    rng = torch.Generator().manual_seed(seed)
    stains = torch.rand(batch, 2, height // 4 + 1, width // 4 + 1, generator=rng, dtype=dtype)
    stains = torch.nn.functional.interpolate(stains, (height, width), mode="bilinear")
    density = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], dtype=dtype)
    image = torch.exp(-torch.einsum("bshw,sc->bchw", stains, density))
    image = image + 0.01 * torch.rand(image.shape, generator=rng, dtype=dtype)
    logits = torch.randn(batch, 2, height, width, generator=rng, dtype=dtype)
    return image.contiguous(), logits


def brute_kernel(image, sigma_xy, sigma_rgb):
    """W [N, N] of one image [3, H, W], every pair of pixels."""
    h, w = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    position = torch.stack([x, y]).reshape(2, -1).double() / sigma_xy
    feature = torch.cat([position, image.double().reshape(3, -1) / sigma_rgb]).T
    return torch.exp(-torch.cdist(feature, feature).square() / 2)


def brute_filter(image, values, sigma_xy, sigma_rgb):
    out = [
        (v.double().reshape(len(v), -1) @ brute_kernel(i, sigma_xy, sigma_rgb)).view_as(v)
        for i, v in zip(image, values, strict=True)
    ]
    return torch.stack(out)


def brute_loss(prob, image, mask, sigma_xy, sigma_rgb):
    """The definition, term by term, with autograd's own gradient."""
    total = 0.0
    for p, i, m in zip(prob, image, mask, strict=True):
        kernel, m = brute_kernel(i, sigma_xy, sigma_rgb), m.double().reshape(-1)
        for s in p.double().reshape(len(p), -1):
            total = total + (m * s) @ kernel @ (m * (1 - s)) / m.sum().clamp(min=1)
    return total / len(prob)


def blurred_along(field, axis):
    """(1/2, 1, 1/2) along an axis of the lattice; a missing point counts 0 and is not made."""
    step = np.ones(6, int)
    step[axis] = -5

    def at(point, sign):
        return field.get(tuple((np.array(point) + sign * step).tolist()), 0.0)

    return {v: value + 0.5 * at(v, 1) + 0.5 * at(v, -1) for v, value in field.items()}


def lattice_twin(image, values, sigma_xy, sigma_rgb):
    """Adams et al. 2010 with dictionaries, one pixel and one lattice point at a time."""
    d = 5
    _, h, w = image.shape
    feature = np.stack(
        [
            (np.tile(np.arange(w), h) - w / 2) / sigma_xy,
            (np.repeat(np.arange(h), w) - h / 2) / sigma_xy,
            *(image.reshape(3, -1) / sigma_rgb),
        ],
        1,
    )
    # Columns of the elevation onto the hyperplane sum(x) = 0, scaled for a blur of deviation 1.
    basis = np.zeros((d + 1, d))
    for j in range(d):
        basis[: j + 1, j], basis[j + 1, j] = 1, -(j + 1)
        basis[:, j] *= np.sqrt(2 / 3) * (d + 1) / np.sqrt((j + 1) * (j + 2))
    splat = []  # of each pixel: the six vertices and their weights
    for x in feature @ basis.T:
        near = np.floor(x / (d + 1) + 0.5) * (d + 1)
        rest = x - near
        excess = round(near.sum() / (d + 1))
        order = np.argsort(-rest, kind="stable")
        if excess > 0:  # too high: lower the coordinates with the least rest
            near[order[d + 1 - excess :]] -= d + 1
        elif excess < 0:
            near[order[:-excess]] += d + 1
        rest = x - near
        order = np.argsort(-rest, kind="stable")
        t = rest[order] / (d + 1)  # descending
        weights = [1 - t[0] + t[d]] + [t[d - k] - t[d + 1 - k] for k in range(1, d + 1)]
        vertices = []
        for k in range(d + 1):
            vertex = near + k
            vertex[order[d + 1 - k :]] -= d + 1
            vertices.append(tuple(vertex.astype(int).tolist()))
        splat.append(list(zip(vertices, weights, strict=True)))
    points = {v for pixel in splat for v, _ in pixel}
    results = []
    for signal in values.reshape(len(values), -1):
        start = dict.fromkeys(points, 0.0)
        for pixel, s in zip(splat, signal, strict=True):
            for v, weight in pixel:
                start[v] += weight * s
        blurred = []
        for axes in (range(d + 1), range(d, -1, -1)):
            field = start
            for axis in axes:
                field = blurred_along(field, axis)
            blurred.append(field)
        alpha = 1 / (1 + 2.0**-d) / 2
        results.append(
            [alpha * sum(wt * (blurred[0][v] + blurred[1][v]) for v, wt in p) for p in splat]
        )
    return np.array(results).reshape(len(values), h, w)
