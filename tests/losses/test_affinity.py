import torch

from tag2mask import losses


def test_the_mean_of_two_ranks_is_the_affinity_loss_of_the_joint_batch() -> None:
    affinity = torch.rand(4, 5, 20)
    kinds = [torch.rand(4, 5, 20) > share for share in (0.3, 0.6, 0.8)]
    kinds[0][:2] = False  # one rank has no pair of the background
    counts = torch.stack([torch.stack([kind[i : i + 2].sum() for kind in kinds]).double() for i in (0, 2)])
    halves = [
        losses.affinity_loss(
            affinity[i : i + 2], *(kind[i : i + 2] for kind in kinds), counted=lambda _: counts.mean(0)
        )
        for i in (0, 2)
    ]
    joint = losses.affinity_loss(affinity, *kinds)
    for name in joint:
        torch.testing.assert_close(torch.stack([half[name] for half in halves]).mean().float(), joint[name])
