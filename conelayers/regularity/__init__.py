"""Regularity of solutions: the certificate, its report, and derivatives at kinks.

Is every element of the Clarke Jacobian of the residual invertible at a solution?
"""

from conelayers.regularity.certificate import Accuracy, Certificate, accuracy, certify
from conelayers.regularity.interface import Interface
from conelayers.regularity.screening import kink_margin, suspicious

__all__ = ["Accuracy", "Certificate", "Interface", "accuracy", "certify", "kink_margin", "suspicious"]
