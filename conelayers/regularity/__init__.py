"""Regularity of solutions: the certificate, its report, and derivatives at kinks.

Is every element of the Clarke Jacobian of the residual invertible at a solution?
"""

from conelayers.regularity.certificate import Certificate, certify
from conelayers.regularity.interface import Interface
from conelayers.regularity.residual import possible_kink
from conelayers.regularity.screening import kink_margin, suspicious

__all__ = ["Certificate", "Interface", "certify", "kink_margin", "possible_kink", "suspicious"]
