"""Model transfer: a student's classes follow those of a teacher."""

from torch import Tensor
from torch.nn import functional


def kl_transfer(student_logits: Tensor, teacher_probabilities: Tensor) -> Tensor:
    """Σ over rows of KL(teacher ‖ softmax(student)): model transfer, See, Hear and Read (2017), section 3.

    Both (n, n_classes).
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_probabilities.shape:
        shapes = tuple(student_logits.shape), tuple(teacher_probabilities.shape)
        raise ValueError(f"student_logits are {shapes[0]}, teacher_probabilities {shapes[1]}; both are (n, n_classes)")
    log_student = functional.log_softmax(student_logits, dim=1)
    return functional.kl_div(log_student, teacher_probabilities, reduction="sum")
