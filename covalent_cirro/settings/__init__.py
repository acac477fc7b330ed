"""Every option of the executor, declared once, and the values that a job gets of them. Pure."""

from covalent_cirro.settings.declared import BY_NAME as BY_NAME
from covalent_cirro.settings.declared import MAX_ATTEMPTS as MAX_ATTEMPTS
from covalent_cirro.settings.declared import MIB_PER_GB as MIB_PER_GB
from covalent_cirro.settings.declared import MIN_MEMORY_MIB as MIN_MEMORY_MIB
from covalent_cirro.settings.declared import OPTIONS as OPTIONS
from covalent_cirro.settings.declared import Option as Option
from covalent_cirro.settings.declared import Settings as Settings
from covalent_cirro.settings.resolving import SECTION as SECTION
from covalent_cirro.settings.resolving import check as check
from covalent_cirro.settings.resolving import plain as plain
from covalent_cirro.settings.resolving import problem as problem
from covalent_cirro.settings.resolving import resolve as resolve
