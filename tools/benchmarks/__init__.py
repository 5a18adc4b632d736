"""What ryu_vmm is measured by: ``tools/bench`` runs it."""
