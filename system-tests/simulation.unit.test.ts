import './simulation/ports.ts'
import { testSchedules } from './simulation/simulation-suite.ts'

// In two files, so that two cores share the work.
testSchedules(1)
