"""A second implementation of the equations of Luo, Wu, Zhao 2023: plain loops in float64, written from the paper, without torch.
Comes in: lists or arrays. Goes out: floats and arrays. Exists so that a mistake has to be made twice to go unseen."""

import itertools
import math

import numpy as np


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def with_margin(similarity, margin, beyond_pi="plain"):
    """cos(theta + m) by way of the angle itself."""
    theta = math.acos(min(1.0, max(-1.0, float(similarity))))
    if beyond_pi == "monotone" and theta + margin >= math.pi:
        return math.cos(theta) - margin * math.sin(margin)
    return math.cos(theta + margin)


def one_against(positive, negatives, temperature):
    """-log(e^(p/tau) / (e^(p/tau) + sum e^(n/tau)))"""
    top = math.exp(positive / temperature)
    return -math.log(top / (top + sum(math.exp(float(n) / temperature) for n in negatives)))


def info_nce(own, others, temperature, present=None):
    """Eq. 3."""
    losses = []
    for i in range(len(own)):
        negatives = [others[i][k] for k in range(len(others[i])) if present is None or present[k]]
        losses.append(one_against(float(own[i]), negatives, temperature))
    return sum(losses) / len(losses)


def all_margin(cosines, positive, negative, margin, temperature, beyond_pi="plain"):
    """Eq. 6."""
    losses = []
    for i in range(len(cosines)):
        negatives = [cosines[i][k] for k in range(len(cosines[i])) if negative[i][k]]
        terms = []
        for k in range(len(cosines[i])):
            if positive[i][k]:
                terms.append(one_against(with_margin(cosines[i][k], margin, beyond_pi), negatives, temperature))
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def sup_con(cosines, positive, negative, temperature):
    """Eq. 4."""
    losses = []
    for i in range(len(cosines)):
        total, count = 0.0, 0
        for k in range(len(cosines[i])):
            if not positive[i][k]:
                continue
            denominator = math.exp(cosines[i][k] / temperature)
            for j in range(len(cosines[i])):
                if negative[i][j]:
                    denominator += math.exp(cosines[i][j] / temperature)
            total += math.log(math.exp(cosines[i][k] / temperature) / denominator)
            count += 1
        losses.append(-total / count)
    return sum(losses) / len(losses)


def self_margin(own, others, negative, margin, temperature, beyond_pi="plain"):
    """Eq. 7."""
    losses = []
    for i in range(len(own)):
        negatives = [others[i][k] for k in range(len(others[i])) if negative[i][k]]
        losses.append(one_against(with_margin(own[i], margin, beyond_pi), negatives, temperature))
    return sum(losses) / len(losses)


def class_margin(cosines, labels, margin, temperature, beyond_pi="plain", present=None):
    """Eq. 5; a class without a centre is no negative, and a query of such a class is not counted."""
    losses = []
    for i in range(len(cosines)):
        known = [c for c in range(len(cosines[i])) if present is None or present[c]]
        if labels[i] in known:
            own = with_margin(cosines[i][labels[i]], margin, beyond_pi)
            losses.append(one_against(own, [cosines[i][c] for c in known if c != labels[i]], temperature))
    return sum(losses) / len(losses) if losses else 0.0


def moving_average(key_weights, query_weights, decay):
    """The key encoder of MoCo: k <- decay k + (1 - decay) q, weight by weight. Lists of arrays in, a list of arrays out."""
    moved = []
    for key, query in zip(key_weights, query_weights, strict=True):
        flat = [decay * float(k) + (1 - decay) * float(q) for k, q in zip(np.ravel(key), np.ravel(query), strict=True)]
        moved.append(np.array(flat, dtype=np.float64).reshape(np.shape(key)))
    return moved


class Queue:
    """First in, first out; the oldest stands first."""

    def __init__(self, size):
        self.size, self.entries = size, []

    def enqueue(self, keys, labels):
        for key, label in zip(keys, labels, strict=True):
            self.entries.append((tuple(float(x) for x in key), int(label)))
            if len(self.entries) > self.size:
                self.entries.pop(0)


# The look-up tables of section 2.2.2 and 3.5.3, I instance, O overlapping, T touching, B touching-overlapping, as
# pair: (touching case of all tables, overlapping case of light, middle, heavy).
TABLES = {
    "II": "TOOO",
    "IT": "T??B",
    "TT": "T??B",
    "IO": "B?OO",
    "OO": "B?OO",
    "OT": "B??B",
    "IB": "B??B",
    "OB": "B??B",
    "TB": "B??B",
    "BB": "B??B",
}
CLASSES = "IOTB"


def look_up(table, first, second, overlapping):
    """Class indices in, class index or None (uncertain) out."""
    if table == "no":
        return None
    pair = CLASSES[first] + CLASSES[second]
    row = TABLES.get(pair) or TABLES[pair[::-1]]
    letter = row[1 + ["light", "middle", "heavy"].index(table)] if overlapping else row[0]
    return None if letter == "?" else CLASSES.index(letter)


def shift_range(primary, candidate):
    """Lines 2 to 5 of Algorithm 1: R of (primary down, primary right, candidate down, candidate right), not rounded."""
    sizes = []
    for image in (primary, candidate):
        rows = [y for y in range(image.shape[0]) for x in range(image.shape[1]) if image[y, x] > 0]
        columns = [x for y in range(image.shape[0]) for x in range(image.shape[1]) if image[y, x] > 0]
        sizes.append((max(rows) - min(rows) + 1, max(columns) - min(columns) + 1))
    ranges = []
    for size in sizes:
        for axis in range(2):
            ranges.append((min(primary.shape[axis], sizes[0][axis] + sizes[1][axis]) - size[axis]) / 2)
    return ranges


def warp(image, down, right):
    height, width = image.shape
    moved = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                moved[y + down, x + right] = image[y, x]
    return moved


def in_contact(first, second):
    height, width = first.shape
    for y, x in np.argwhere(first > 0):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if 0 <= y + dy < height and 0 <= x + dx < width and second[y + dy, x + dx] > 0:
                    return True
    return False


def compose(primary, candidate, y_p, y_c, shifts, table, blend="equal", ratio=0.5, threshold=200, require_contact=False):
    """Algorithm 1 for one pair of images, with the shifts of its draws given: a sequence of (primary down, right, candidate down, right).
    Returns image, label, overlap of the accepted draw or -1, number of draws made."""
    height, width = primary.shape
    limit = threshold * (height * width) / (224 * 224)
    for n, (p_down, p_right, c_down, c_right) in enumerate(shifts, start=1):
        first, second = warp(primary, p_down, p_right), warp(candidate, c_down, c_right)
        image, overlap = np.zeros((height, width)), 0
        for y in range(height):
            for x in range(width):
                a, b = first[y, x], second[y, x]
                if a > 0 and b == 0:
                    image[y, x] = a
                elif a == 0 and b > 0:
                    image[y, x] = b
                elif a > 0 and b > 0:
                    overlap += 1
                    image[y, x] = {"equal": 0.5 * a + 0.5 * b, "lambda": ratio * a + (1 - ratio) * b, "maximum": max(a, b)}[blend]
        label = look_up(table, y_p, y_c, overlap > limit)
        if require_contact and overlap == 0 and not in_contact(first, second):
            label = None
        if label is not None:
            return image, label, overlap, n
    return candidate.astype(np.float64), y_c, -1, len(shifts)


def metrics(labels, predictions, classes):
    """Eq. 8 to 12 by counting images; a class without an image is left out of the means, one never predicted has precision 0."""
    pairs = list(zip(labels, predictions, strict=True))
    sums = {"precision": 0.0, "sensitivity": 0.0, "specificity": 0.0, "f1": 0.0}
    counted = 0
    for c in range(classes):
        tp = sum(1 for truth, guess in pairs if truth == c and guess == c)
        fp = sum(1 for truth, guess in pairs if truth != c and guess == c)
        fn = sum(1 for truth, guess in pairs if truth == c and guess != c)
        tn = sum(1 for truth, guess in pairs if truth != c and guess != c)
        if tp + fn == 0:
            continue
        counted += 1
        precision = tp / (tp + fp) if tp + fp else 0.0
        sensitivity = tp / (tp + fn)
        sums["precision"] += precision
        sums["sensitivity"] += sensitivity
        sums["specificity"] += tn / (tn + fp) if tn + fp else 0.0
        sums["f1"] += 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
    hits = sum(1 for truth, guess in pairs if truth == guess)
    means = {name: total / counted for name, total in sums.items()}
    return {"accuracy": hits / len(pairs)} | means | ({"specificity": None} if counted == 1 else {})


def knn_accuracy(train_z, train_y, z, y, k, temperature):
    right = 0
    for row, truth in zip(z, y, strict=True):
        near = sorted(((cosine(row, other), int(label)) for other, label in zip(train_z, train_y, strict=True)), reverse=True)[:k]
        votes = {}
        for similarity, label in near:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / temperature)
        right += max(votes, key=votes.get) == int(truth)
    return right / len(y)


def sample(image, affine):
    """The view of a square image under an affine map from output to input coordinates: centres of pixels at (2 i + 1) / side - 1,
    bilinear, 0 outside. image: (H, W); affine: (2, 3), x first."""
    height, width = image.shape
    view = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
            from_x = ((float(affine[0][0]) * x + float(affine[0][1]) * y + float(affine[0][2]) + 1) * width - 1) / 2
            from_y = ((float(affine[1][0]) * x + float(affine[1][1]) * y + float(affine[1][2]) + 1) * height - 1) / 2
            left, top = math.floor(from_x), math.floor(from_y)
            for i in (top, top + 1):
                for j in (left, left + 1):
                    if 0 <= i < height and 0 <= j < width:
                        view[row, column] += (1 - abs(from_y - i)) * (1 - abs(from_x - j)) * float(image[i, j])
    return view


def blur(image, sigma):
    """Gaussian of this sigma in pixels, cut off at ceil(3 sigma), borders mirrored without repeating the edge. image: (H, W)."""
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    total = sum(weights)

    def mirrored(i, side):
        return -i if i < 0 else 2 * (side - 1) - i if i >= side else i

    height, width = image.shape
    blurred = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    weight = weights[dy + reach] * weights[dx + reach] / total**2
                    blurred[row, column] += weight * float(image[mirrored(row + dy, height), mirrored(column + dx, width)])
    return blurred


def jitter(image, brightness, contrast):
    """Brightness as a factor, then contrast about the mean of the result, each clipped to [0, 1]. image: (H, W)."""
    bright = np.clip(np.asarray(image, dtype=np.float64) * float(brightness), 0, 1)
    return np.clip(bright.mean() + float(contrast) * (bright - bright.mean()), 0, 1)


def reflected(i, size):
    """The index that a mirror at both ends shows for i; the edge itself is not repeated. CCRL's crops at a tile's border."""
    while not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i


def contrast_of_cells(queries, keys, queue, temperature, cells=None, owners=None):
    """CCRL, Eq. 2, mean over the batch: the own key against the batch's other keys and the queue, rows of any length. cells, owners: the cell of
    each query and of each key of the queue, whose own keys are then left out."""
    losses = []
    for i in range(len(queries)):
        negatives = [cosine(queries[i], keys[j]) for j in range(len(keys)) if j != i] + [
            cosine(queries[i], key) for k, key in enumerate(queue) if owners is None or owners[k] != cells[i]
        ]
        losses.append(one_against(cosine(queries[i], keys[i]), negatives, temperature))
    return sum(losses) / len(losses)


def information(labels, clusters):
    """(mutual information, entropy of labels, entropy of clusters), nats, by counting."""
    n = len(labels)

    def entropy(values):
        return -sum(values.count(v) / n * math.log(values.count(v) / n) for v in set(values))

    first, second, both = list(labels), list(clusters), list(zip(labels, clusters, strict=True))
    return entropy(first) + entropy(second) - entropy(both), entropy(first), entropy(second)


def ami_given(labels, clusters, tiles):
    """The conditional mutual information of labels and clusters given the tile, its mean over every order of the clusters within every tile,
    and the mean of both conditional entropies: (I - E) / (H - E). All orders are gone through: for a handful of cells."""
    n, i, expected, h = len(labels), 0.0, 0.0, 0.0
    for tile in set(tiles):
        a = [label for label, t in zip(labels, tiles, strict=True) if t == tile]
        b = [cluster for cluster, t in zip(clusters, tiles, strict=True) if t == tile]
        found = information(a, b)
        orders = list(itertools.permutations(b))
        i += len(a) / n * found[0]
        expected += len(a) / n * sum(information(a, list(order))[0] for order in orders) / len(orders)
        h += len(a) / n * (found[1] + found[2]) / 2
    return (i - expected) / (h - expected)


def restained(pixel, factor, offset):
    """One pixel (r, g, b) above 0: densities of haematoxylin, eosin and DAB by solving colour = exp(-density), times factor, plus offset."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    density = np.linalg.solve(stains.T, [-math.log(max(value, 1 / 255)) for value in pixel])
    changed = [density[s] * factor[s] + offset[s] for s in range(3)]
    return [min(1.0, max(0.0, math.exp(-sum(changed[s] * stains[s][c] for s in range(3))))) for c in range(3)]


def purity(labels, clusters):
    """Share of the rows that are of the commonest type of their cluster."""
    right = 0
    for cluster in set(clusters):
        inside = [label for label, other in zip(labels, clusters, strict=True) if other == cluster]
        right += max(inside.count(label) for label in inside)
    return right / len(labels)


def rand_index(labels, clusters):
    """Adjusted Rand index over all pairs (Hubert and Arabie 1985)."""
    n, both, first, second = len(labels), 0, 0, 0
    for i in range(n):
        for j in range(i):
            a, b = labels[i] == labels[j], clusters[i] == clusters[j]
            both, first, second = both + (a and b), first + a, second + b
    expected = first * second / (n * (n - 1) / 2)
    return (both - expected) / ((first + second) / 2 - expected)


# ---- SCL (Chang et al.), written from its Algorithm 1 and Eq. 3-5


def focal_loss(row, target, gamma):
    """Lin et al. 2017 for several classes: -(1 - p_t)^gamma log p_t of one row of scores."""
    top = max(float(value) for value in row)
    exponentials = [math.exp(float(value) - top) for value in row]
    p = exponentials[target] / sum(exponentials)
    return -((1 - p) ** gamma) * math.log(p)


def similarity(first, second, t):
    """S_ij = dot(E_i_norm, E_j_norm.trans()) x t, as lists of rows."""
    return [[cosine(a, b) * t for b in second] for a in first]


def scl_contrast(first, second, t, gamma):
    """Eq. 3: four blocks, each by rows and by columns; the mean over the rows of a block."""
    batches, total = (first, second), 0.0
    for i in (0, 1):
        for j in (0, 1):
            block = similarity(batches[i], batches[j], t)
            columns = [[block[k][m] for k in range(len(block))] for m in range(len(block))]
            for rows in (block, columns):
                total += sum(focal_loss(row, k, gamma) for k, row in enumerate(rows)) / len(rows)
    return total


def scl_contrast_of_the_authors(first, second, t, gamma):
    """Their program: S_12 + S_11 + S_22, each the mean of its loss by rows and its loss by columns."""
    total = 0.0
    for one, two in ((first, second), (first, first), (second, second)):
        block = similarity(one, two, t)
        by_rows = [focal_loss(row, k, gamma) for k, row in enumerate(block)]
        by_columns = [focal_loss([row[k] for row in block], k, gamma) for k in range(len(block))]
        total += 0.5 * (sum(by_rows) / len(by_rows) + sum(by_columns) / len(by_columns))
    return total


def balanced_weights(of_contrast, of_classification, part, memory):
    """The contrast's weight in each step: `part` times the ratio of the two gradients' lengths, each squared length a mean over the steps
    so far in which a step counts `memory` times as much as the one after it. Lists of gradients (rows of numbers), a pair a step."""
    weights, steps = [], []
    for contrast, classification in zip(of_contrast, of_classification, strict=True):
        steps.append([sum(float(x) ** 2 for row in gradient for x in row) for gradient in (contrast, classification)])
        share = [memory ** (len(steps) - 1 - number) for number in range(len(steps))]
        sizes = [sum(s * step[which] for s, step in zip(share, steps, strict=True)) / sum(share) for which in (0, 1)]
        weights.append(part * math.sqrt(sizes[1] / sizes[0]))
    return weights


def scl_classification(first, second, gamma):
    """Eq. 5 of the class scores of the two batches: (C, C) each, row k of an image of class k."""
    return sum(sum(focal_loss(row, k, gamma) for k, row in enumerate(scores)) / len(scores) for scores in (first, second))


# ---- DCEC (Guo et al. 2017), written from its Eq. 2, 3 and 6 and the gradients of DEC (Xie et al. 2016, Eq. 4 and 5 with one degree of freedom)


def student(codes, centers):
    """q_ij = (1 + |z_i - mu_j|^2)^-1 / sum over j'."""
    near = [[1 / (1 + sum((float(a) - float(b)) ** 2 for a, b in zip(code, center, strict=True))) for center in centers] for code in codes]
    return [[value / sum(row) for value in row] for row in near]


def target_of(q):
    """p_ij = (q_ij^2 / f_j) / sum over j', f_j = sum_i q_ij."""
    f = [sum(row[j] for row in q) for j in range(len(q[0]))]
    rows = [[row[j] ** 2 / f[j] for j in range(len(f))] for row in q]
    return [[value / sum(row) for value in row] for row in rows]


def kullback_leibler(p, q):
    """Mean over the rows of sum_j p_ij log(p_ij / q_ij)."""
    return sum(a * math.log(a / b) for first, second in zip(p, q, strict=True) for a, b in zip(first, second, strict=True) if a > 0) / len(
        p
    )


def gradients_of_divergence(codes, centers, p):
    """Of the mean KL(P || Q), P as given: by codes and by centres. 2 / n times sum (1 + |z_i - mu_j|^2)^-1 (p_ij - q_ij) (z_i - mu_j)."""
    n, q = len(codes), student(codes, centers)
    of_codes, of_centers = np.zeros(np.shape(codes)), np.zeros(np.shape(centers))
    for i, code in enumerate(codes):
        for j, center in enumerate(centers):
            apart = np.asarray(code, float) - np.asarray(center, float)
            pull = 2 / n * (p[i][j] - q[i][j]) / (1 + float((apart**2).sum())) * apart
            of_codes[i] += pull
            of_centers[j] -= pull
    return of_codes, of_centers


# ---- GAN clustering (Hu et al. 2019): the losses on a critic that is one hidden layer of ReLU, gradients by hand (Gulrajani et al. 2017, Eq. 3)


def hidden_score(x, first, last):
    """score = last . max(0, first x), and its gradient in x: first' (last where the hidden unit is above 0)."""
    hidden = [sum(w * float(v) for w, v in zip(row, x, strict=True)) for row in first]
    score = sum(w * max(0.0, h) for w, h in zip(last, hidden, strict=True))
    slope = [sum(last[j] * first[j][i] for j, h in enumerate(hidden) if h > 0) for i in range(len(x))]
    return score, slope


def critic_losses(real, drawn, shares, first, last):
    """Minus the distance, mean score of drawn less that of real; and the mean of (|slope| - 1)^2 at share x real + (1 - share) x drawn."""
    apart = sum(hidden_score(x, first, last)[0] for x in drawn) / len(drawn) - sum(hidden_score(x, first, last)[0] for x in real) / len(
        real
    )
    penalty = 0.0
    for one, other, share in zip(real, drawn, shares, strict=True):
        between = [share * float(a) + (1 - share) * float(b) for a, b in zip(one, other, strict=True)]
        slope = hidden_score(between, first, last)[1]
        penalty += (math.sqrt(sum(value**2 for value in slope)) - 1) ** 2 / len(real)
    return apart, penalty


def negative_log_likelihood(scores, category):
    """Mean of log sum_j exp(s_j) - s_c over the rows."""
    rows = [math.log(sum(math.exp(value) for value in row)) - row[c] for row, c in zip(scores, category, strict=True)]
    return sum(rows) / len(rows)


# ---- Varifocal-Net's square: what is cut of an image and enlarged


def enlarged_square(image, x, y, half):
    """The square of an image (rows of numbers) about (x, y) with this half side, in sides of the image, enlarged to its size: bilinear
    between the middles of its own pixels, 0 beyond them."""
    side = len(image)
    low, high = [(c - half) * side for c in (y, x)], [(c + half) * side for c in (y, x)]

    def at(row, column):
        inside = 0 <= row < side and 0 <= column < side
        kept = inside and low[0] < row + 0.5 < high[0] and low[1] < column + 0.5 < high[1]
        return float(image[row][column]) if kept else 0.0

    found = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            down, right = low[0] + 2 * half * (i + 0.5) - 0.5, low[1] + 2 * half * (j + 0.5) - 0.5
            row, column = math.floor(down), math.floor(right)
            for r, share in ((row, 1 - (down - row)), (row + 1, down - row)):
                for c, part in ((column, 1 - (right - column)), (column + 1, right - column)):
                    found[i, j] += share * part * at(r, c)
    return found
