"""The regularity certificate: is every element of the Clarke Jacobian of the residual invertible at a solution?"""

from conelayers.residual.regularity.certificate import Accuracy, Certificate, accuracy, certify
from conelayers.residual.regularity.interface import Interface
from conelayers.residual.regularity.screening import kink_margin, suspicious

__all__ = ["Accuracy", "Certificate", "Interface", "accuracy", "certify", "kink_margin", "suspicious"]
