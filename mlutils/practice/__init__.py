"""The code of ``chapters/practice`` that is in no other room."""

from mlutils.practice.backbone import BACKBONE, pretrained_backbone

__all__ = ["BACKBONE", "pretrained_backbone"]
