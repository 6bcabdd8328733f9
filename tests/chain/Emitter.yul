// A contract that says whatever it is told: for histories no honest LeaseAgreement would write, and for many logs at once.
//
// Calldata 0xff, then records of [topics: 1 byte][data length: 2 bytes][topics, 32 bytes each][data] -> one log each.
// Any other call returns one zero word, so that the node takes it for a v1 LeaseAgreement.
//
// Compiled with contracts/node_modules/solc (standard JSON, language Yul, optimizer on); the bytecode stands in emitter.py.
object "Emitter" {
  code {
    datacopy(0, dataoffset("runtime"), datasize("runtime"))
    return(0, datasize("runtime"))
  }
  object "runtime" {
    code {
      if iszero(eq(byte(0, calldataload(0)), 0xff)) { return(0, 32) }
      let at := 1
      for {} lt(at, calldatasize()) {} {
        let head := calldataload(at)
        let topics := byte(0, head)
        let length := and(shr(232, head), 0xffff)
        at := add(at, 3)
        let data := add(at, mul(topics, 32))
        calldatacopy(0, data, length)
        switch topics
        case 1 { log1(0, length, calldataload(at)) }
        case 2 { log2(0, length, calldataload(at), calldataload(add(at, 32))) }
        case 3 { log3(0, length, calldataload(at), calldataload(add(at, 32)), calldataload(add(at, 64))) }
        case 4 { log4(0, length, calldataload(at), calldataload(add(at, 32)), calldataload(add(at, 64)), calldataload(add(at, 96))) }
        at := add(data, length)
      }
    }
  }
}
