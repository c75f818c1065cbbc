"""Emerging Properties in Self-Supervised Vision Transformers (DINO; Caron et al. 2021, arXiv 2104.14294)."""

from collections.abc import Iterator, Mapping
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32, widened
from ownlatent.methods._base import Method, Suspect
from ownlatent.nn.center import Center
from ownlatent.nn.collectives import average
from ownlatent.nn.ema import EMA
from ownlatent.optim.groups import split_decay
from ownlatent.optim.schedules import cosine
from ownlatent.types import Output, Views


class DINO(Method):
    """Give every view the soft assignment to prototypes that a slow teacher gives the large views.

    Idea: A student learns to sort every view of an image, small crops too, as a teacher sorts its large views. The
    teacher is a moving average of the student, and what is kept in the end. Subtracting a running mean (centring) keeps
    one prototype from taking all images, and a low temperature (sharpening) keeps the assignment from becoming
    uniform.

    Equation: P_t = softmax((g_t - c) / tau_t), P_s = softmax(g_s / tau_s), loss = mean of -sum P_t log P_s over the
    pairs of a large view (teacher) and another view (student), 2 (V - 1) of V views (eq. 1 to 3);
    c <- m c + (1 - m) mean g_t (eq. 4); tau = 1 - (1 - tau_base) (cos(pi progress) + 1) / 2.

    Needs: batch 64 or more; memory two networks and the prototypes; negatives none; momentum yes; predictor no.

    Pick it: for Vision Transformers, for features whose nearest neighbours are used as they are, and where small
    crops beside the large ones are affordable.

    Goes wrong: without centring, or with a centre that is too slow (momentum 0.999), one prototype takes all: the
    entropy of the teacher's mean falls to 0. Without sharpening, or with a teacher temperature above 0.07 from the
    start, the assignment becomes uniform: loss and entropy stay at ln K. Either way kl falls to 0.

    hidden, bottleneck: widths of the projector, of 3 layers. prototypes: K. student_temperature, teacher_temperature:
    sharpness of the two; the teacher's rises from warmup_temperature over the first `warmup` share of the run.
    center_momentum: m, of which 1 is without centring. tau: tau_base of the teacher. freeze: the share of the run, an
    epoch of 100, in which the prototypes do not move. clip: the largest gradient norm of each single tensor, 0 for no
    limit. The teacher's temperature follows the steps, not the epochs as in the released code, and is that of the
    step before.
    """

    max_views = None
    least_std = 0.03  # nothing normalises in its projector, so that its outputs begin close together

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        prototypes: int = 65536,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_temperature: float = 0.04,
        warmup: float = 0.3,
        center_momentum: float = 0.9,
        tau: float = 0.996,
        freeze: float = 0.01,
        clip: float = 3.0,
    ):
        super().__init__()
        if not all(t > 0 for t in (student_temperature, teacher_temperature, warmup_temperature)):
            raise OwnlatentError("the temperatures of student and teacher must be greater than 0")
        if not all(0 <= share <= 1 for share in (warmup, center_momentum, tau, freeze)):
            raise OwnlatentError("warmup, center_momentum, tau and freeze are shares from 0 to 1")
        if not clip >= 0 or min(hidden, bottleneck, prototypes) < 1:
            raise OwnlatentError("clip must be at least 0, and hidden, bottleneck and prototypes at least 1")
        self.backbone = backbone
        self.projector = _projector(backbone.num_features, hidden, bottleneck)
        self.prototypes = Prototypes(bottleneck, prototypes)
        self.target = EMA(self.backbone, self.projector, self.prototypes)
        self.center = Center(prototypes, center_momentum)
        self.student_temperature, self.tau, self.freeze, self.clip = student_temperature, tau, freeze, clip
        self.warmup_temperature, self.teacher_temperature, self.warmup = warmup_temperature, teacher_temperature, warmup
        self.present_temperature: Tensor
        self.register_buffer("present_temperature", torch.tensor(self.scheduled(0.0)["teacher_temperature"]))

    @property
    def result(self) -> Backbone:
        """The teacher's, as in the paper. Its BatchNorm has seen large views only, the student's mostly small ones."""
        teacher = self.target.net[0]
        assert isinstance(teacher, Backbone)
        return teacher

    def forward(self, views: Views) -> Output:
        self.check_views(len(views))
        projected = [self.projector(self.backbone(view)) for view in views]
        student = torch.stack([self.prototypes(z) for z in projected])
        teacher = torch.stack([self.target(view) for view in views[:2]])
        loss, entropy, single, kl = cross_view_loss(
            widened(student) / self.student_temperature, teacher, self.center.value, self.present_temperature
        )
        self.center.observe(teacher.flatten(0, 1))
        return Output(loss, projected[0].detach(), {"entropy": entropy, "single_entropy": single, "kl": kl})

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        momentum, student = settings["center_momentum"], settings["student_temperature"]
        teacher, warmup = settings["teacher_temperature"], settings["warmup_temperature"]
        if momentum > 0.99:
            why = "there is no centring" if momentum == 1 else "the centre follows too slowly"
            why += f" (center_momentum {momentum:g}; in DINO's appendix 0.999 collapses)"
            yield Suspect("center_momentum", why, "give --method.center-momentum 0.9")
        if max(teacher, warmup) >= student:
            why = f"the teacher is no sharper than the student (temperatures {max(teacher, warmup):g} and {student:g};"
            why += " DINO, section 5.3)"
            yield Suspect("teacher_temperature", why, "give --method.teacher-temperature 0.04")
        elif warmup > 0.07:
            why = f"the teacher begins too warm ({warmup:g}; DINO's appendix warns of more than 0.06)"
            yield Suspect("warmup_temperature", why, "give --method.warmup-temperature 0.04")

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        all_used = log(settings["prototypes"])
        of_mean, single, kl = (row[name] for name in ("entropy", "single_entropy", "kl"))
        numbers = (
            f"(entropy of the mean assignment {of_mean:.2f}, of single ones {single:.2f}, of all alike {all_used:.2f})"
        )
        if of_mean < 0.1 * all_used:
            return "collapsed", f"few prototypes take all images {numbers}"
        if single > 0.98 * all_used and kl < 0.005:
            return "collapsed", f"every image is assigned to all prototypes alike {numbers}"
        return None

    def param_groups(self) -> list[dict]:
        # Apart, because fused SGD takes only groups of which all parameters begin at the same step.
        return [*split_decay(self.backbone, self.projector), *split_decay(self.prototypes)]

    def before_step(self, progress: float) -> None:
        if progress < self.freeze:
            self.prototypes.weight.grad = None
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if self.clip and gradients:
            norms = torch._foreach_norm(gradients)
            torch._foreach_mul_(gradients, [(self.clip / (norm + 1e-6)).clamp(max=1) for norm in norms])

    def after_step(self, progress: float) -> None:
        now = self.scheduled(progress)
        self.target.update(self.backbone, self.projector, self.prototypes, tau=now["tau"])
        self.present_temperature.fill_(now["teacher_temperature"])

    def scheduled(self, progress: float) -> dict[str, float]:
        risen = min(1.0, progress / self.warmup) if self.warmup else 1.0
        temperature = self.warmup_temperature + risen * (self.teacher_temperature - self.warmup_temperature)
        return {"tau": cosine(progress, self.tau, 1.0), "teacher_temperature": temperature}


class Prototypes(nn.Module):
    """Cosines of unit vectors (B, D) with K learned directions: (B, K). A weight-normed layer of gain 1."""

    def __init__(self, inputs: int, count: int):
        super().__init__()
        self.weight = nn.Linear(inputs, count, bias=False).weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


def _projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear - GELU - Linear - GELU - Linear, without any normalisation."""
    linears = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)
    for linear in linears:
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(linears[0], nn.GELU(), linears[1], nn.GELU(), linears[2])


@in_float32
def cross_view_loss(
    student: Tensor, teacher: Tensor, center: Tensor, temperature: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean cross-entropy over the pairs of a large view (teacher) and another view (student) (DINO, eq. 3).

    student: logits (V, B, K), divided by the student's temperature. teacher: logits (2, B, K) of views 0 and 1,
    from which `center` (K,) is taken before they are divided by `temperature`. Also returns, without a
    gradient, the entropy of the teacher's mean assignment over the batch of all processes, the mean entropy of its
    single ones, both in [0, ln K], and the mean divergence KL(P_t || P_s) over the pairs.
    """
    wanted = ((teacher.detach() - center) / temperature).softmax(-1)
    views = list(enumerate(student.log_softmax(-1).unbind()))
    pairs = [(p, given) for t, p in enumerate(wanted.unbind()) for s, given in views if s != t]
    loss = torch.stack([-(p * given).sum(-1).mean() for p, given in pairs]).mean()
    mean = average(wanted.mean((0, 1)))
    single = -torch.special.xlogy(wanted, wanted).sum(-1).mean()
    return loss, -torch.special.xlogy(mean, mean).sum(), single, loss.detach() - single


RECIPES = {
    "default": {
        "views": "dino",
        "optim.name": "adamw",
        "optim.base_lr": 3e-3,
        "optim.weight_decay": 0.04,
        "method.prototypes": 4096,
        "method.tau": 0.99,
    },
    "small": {"views": "dino_small"},
    "processor": {"method.hidden": 512, "method.bottleneck": 128, "method.prototypes": 1024},
    "long": {"method.tau": 0.996},
    "imagenet": {
        "about": "ViT-S/16, the released code's 100 epochs on 8 GPUs: 74.0 % linear, 69.3 % k-NN",
        "views": "dino",
        "backbone": "vit_small_patch16_224",
        "image_size": 224,
        "batch_size": 512,
        "epochs": 100,
        "backbone.drop_path_rate": 0.1,
        "optim.name": "adamw",
        "optim.base_lr": 5e-4,
        "optim.end_lr": 1e-3,
        "optim.weight_decay": 0.04,
        "optim.end_weight_decay": 0.4,
        "optim.warmup": 0.1,
        "method.prototypes": 65536,
        "method.tau": 0.996,
    },
    "imagenet_resnet": {
        "about": "ResNet-50 with the README's settings for 100 epochs; those of the paper's 75.3 % are not published",
        "views": "dino_resnet",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 1024,
        "epochs": 100,
        "optim.name": "sgd",
        "optim.base_lr": 0.03,
        "optim.weight_decay": 1e-4,
        "optim.warmup": 0.1,
        "method.prototypes": 65536,
        "method.tau": 0.996,
    },
}
