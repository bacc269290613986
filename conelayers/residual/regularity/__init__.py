"""The regularity certificate: is every element of the Clarke Jacobian of the residual invertible at a solution?"""

from conelayers.residual.regularity.artefacts import Interface
from conelayers.residual.regularity.certificate import Certificate, certify

__all__ = ["Certificate", "Interface", "certify"]
