"""How unlabeled images teach. One file, one method."""

from typing import Annotated

from pydantic import Field

from common.labeling import Kit
from common.methods.ad_mt import ADMT
from common.methods.base import Card, Method, NewNetwork, Outcome
from common.methods.bcp import BCP
from common.methods.cct import CCT
from common.methods.ccvc import CCVC
from common.methods.corr_match import CorrMatch
from common.methods.cpcl import CPCL
from common.methods.cross_pseudo import CrossPseudo
from common.methods.dhc import DHC
from common.methods.dmt import DynamicMutual
from common.methods.dst import DebiasedSelfTraining
from common.methods.dtc import DTC
from common.methods.dwl import DecoupledWeighted
from common.methods.eln import ELN
from common.methods.fixmatch import FixMatch
from common.methods.mc_net import MCNet
from common.methods.mean_teacher import MeanTeacher
from common.methods.mutual_learning import MutualLearning
from common.methods.prototypes import PrototypeConsistency
from common.methods.ps_mt import PSMT
from common.methods.reco import ReCo
from common.methods.rrn import RRN
from common.methods.supervised import Supervised
from common.methods.u2pl import U2PL
from common.methods.ua_mt import UncertaintyAwareMeanTeacher
from common.methods.ucc import UCC
from common.methods.unimatch import UniMatch
from common.methods.unimatch_v2 import UniMatchV2
from common.methods.urpc import URPC

AnyMethod = Annotated[
    ADMT
    | BCP
    | CCT
    | CCVC
    | CorrMatch
    | CPCL
    | CrossPseudo
    | DebiasedSelfTraining
    | DecoupledWeighted
    | DHC
    | DTC
    | DynamicMutual
    | ELN
    | FixMatch
    | MCNet
    | MeanTeacher
    | MutualLearning
    | PrototypeConsistency
    | PSMT
    | ReCo
    | RRN
    | Supervised
    | U2PL
    | UCC
    | UncertaintyAwareMeanTeacher
    | UniMatch
    | UniMatchV2
    | URPC,
    Field(discriminator="name"),
]
"""What ``method:`` may say in a YAML file."""

__all__ = [
    "ADMT",
    "BCP",
    "CCT",
    "CCVC",
    "CPCL",
    "DHC",
    "DTC",
    "ELN",
    "PSMT",
    "RRN",
    "U2PL",
    "UCC",
    "URPC",
    "AnyMethod",
    "Card",
    "CorrMatch",
    "CrossPseudo",
    "DebiasedSelfTraining",
    "DecoupledWeighted",
    "DynamicMutual",
    "FixMatch",
    "Kit",
    "MCNet",
    "MeanTeacher",
    "Method",
    "MutualLearning",
    "NewNetwork",
    "Outcome",
    "PrototypeConsistency",
    "ReCo",
    "Supervised",
    "UncertaintyAwareMeanTeacher",
    "UniMatch",
    "UniMatchV2",
]
